// What one JavaScript environment (the main thread, or a worker) owns, and the small words that the
// addon's functions are written with. Only this folder knows Node-API.
#pragma once
#include <node_api.h>

#include <memory>
#include <string>
#include <vector>

#include "../core/runtime.h"

namespace zs::napi {

struct Environment {
  std::unique_ptr<Runtime> runtime;
  const double *packet = nullptr;
  napi_ref packet_owner = nullptr;
  Error last_error = {"INTERNAL", "no call has failed yet"};
  napi_threadsafe_function arrivals = nullptr;  // how streams reach the event loop
  int pending = 0;                              // promises; the process stays while there are any
};

// Arguments of a call; the readers throw Error (ARGUMENT) where one is missing or of another type.
struct Call {
  napi_env env;
  Environment *environment = nullptr;
  napi_value arguments[4] = {};
  Runtime &runtime() const { return *environment->runtime; }
};

struct Bytes {
  void *data;
  size_t size;
};

double number_of(const Call &call, napi_value value, const char *what);
int integer_of(const Call &call, napi_value value, int least, int end, const char *what);
bool boolean_of(const Call &call, napi_value value, const char *what);
std::string string_of(const Call &call, napi_value value, const char *what);
Bytes bytes_of(const Call &call, napi_value value, const char *what);
std::vector<napi_value> elements_of(const Call &call, napi_value value, const char *what);
napi_value property_of(const Call &call, napi_value object, const char *name);  // may be undefined
bool is_undefined(const Call &call, napi_value value);

napi_value make_number(napi_env env, double value);
napi_value make_string(napi_env env, const std::string &value);
napi_value make_numbers(napi_env env, const double *values, int count);
napi_value make_error(napi_env env, const Error &error);  // { code, message }
void set(napi_env env, napi_value object, const char *name, napi_value value);

// async.cpp
void open_arrivals(napi_env env, Environment *environment);
napi_value read(Call &call);
napi_value synchronize(Call &call);
// trace.cpp
napi_value trace_start(Call &call);
napi_value trace_take(Call &call);
// graph.cpp
napi_value graph_begin(Call &call);
napi_value graph_end(Call &call);
napi_value graph_launch(Call &call);
napi_value graph_drop(Call &call);
napi_value ranges_on(Call &call);
napi_value range_start(Call &call);
napi_value range_end(Call &call);
// swap.cpp
napi_value open_swap(Call &call);
napi_value close_swap(Call &call);
// device.cpp
napi_value configure(Call &call);
napi_value device(Call &call);
napi_value devices(Call &call);
// hardware.cpp
napi_value hardware(Call &call);
// addon.cpp: every function that may throw runs in this.
napi_value guarded(napi_env env, napi_callback_info info, napi_value (*body)(Call &call));

}  // namespace zs::napi
