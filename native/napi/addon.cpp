// The addon: lib/binding/native.ts says what each function promises. The hot ones take no arguments:
// they read the registered packet and answer with a number, negative where lastError() tells why.
#include "../backend/cpu/backend.h"
#include "../backend/cpu/cpu.h"
#include "environment.h"

namespace zs::napi {

namespace {

constexpr const char *kVersion = "0.1.0";
constexpr size_t kPacketEntries = 512;

Error caught() {
  try {
    throw;
  } catch (const Error &error) {
    return error;
  } catch (const std::bad_alloc &) {
    return {"OUT_OF_MEMORY", "no host memory left"};
  } catch (const std::exception &error) {
    return {"INTERNAL", error.what()};
  }
}

template <class Body>
napi_value hot(napi_env env, napi_callback_info info, Body body) {
  void *data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  Environment *environment = static_cast<Environment *>(data);
  double answer = -1;
  try {
    if (!environment->packet) throw Error{"ARGUMENT", "no packet is registered"};
    answer = static_cast<double>(body(*environment->runtime, environment->packet));
  } catch (...) {
    environment->last_error = caught();
  }
  return make_number(env, answer);
}

napi_value alloc(napi_env env, napi_callback_info info) {
  return hot(env, info, [](Runtime &r, const double *packet) { return r.alloc(packet); });
}

napi_value view(napi_env env, napi_callback_info info) {
  return hot(env, info, [](Runtime &r, const double *packet) { return r.view(packet); });
}

napi_value free_(napi_env env, napi_callback_info info) {
  return hot(env, info, [](Runtime &r, const double *packet) { return r.free(packet), 0; });
}

napi_value run(napi_env env, napi_callback_info info) {
  return hot(env, info, [](Runtime &r, const double *packet) { return r.run(packet), 0; });
}

napi_value run_live(napi_env env, napi_callback_info info) {
  return hot(env, info, [](Runtime &r, const double *packet) { return r.run_live(packet); });
}

napi_value collective(napi_env env, napi_callback_info info) {
  return hot(env, info, [](Runtime &r, const double *packet) { return r.collective(packet), 0; });
}

napi_value transfer(napi_env env, napi_callback_info info) {
  return hot(env, info, [](Runtime &r, const double *packet) { return r.transfer(packet), 0; });
}

napi_value last_error(Call &call) {
  napi_value result = nullptr;
  napi_create_object(call.env, &result);
  set(call.env, result, "code", make_string(call.env, call.environment->last_error.code));
  set(call.env, result, "message", make_string(call.env, call.environment->last_error.message));
  return result;
}

napi_value register_packet(Call &call) {
  bool typed = false;
  napi_is_typedarray(call.env, call.arguments[0], &typed);
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void *data = nullptr;
  if (typed)
    napi_get_typedarray_info(call.env, call.arguments[0], &type, &length, &data, nullptr, nullptr);
  if (type != napi_float64_array || length < kPacketEntries)
    throw Error{"ARGUMENT", text("the packet must be a Float64Array of %zu entries or more",
                                 kPacketEntries)};
  Environment *environment = call.environment;
  if (environment->packet_owner) napi_delete_reference(call.env, environment->packet_owner);
  napi_create_reference(call.env, call.arguments[0], 1, &environment->packet_owner);
  environment->packet = static_cast<const double *>(data);
  return nullptr;
}

napi_value ops(Call &call) {
  napi_value result = nullptr;
  napi_create_array(call.env, &result);
  for (int i = 0; i < ZS_OP_COUNT; i++) {
    const OpInfo &info = op_info(i);
    napi_value op = nullptr;
    napi_create_object(call.env, &op);
    set(call.env, op, "name", make_string(call.env, info.name));
    set(call.env, op, "outputs", make_number(call.env, info.outputs));
    set(call.env, op, "inputs", make_number(call.env, info.inputs));
    set(call.env, op, "scalars", make_number(call.env, info.scalars));
    napi_set_element(call.env, result, static_cast<uint32_t>(i), op);
  }
  return result;
}

napi_value write(Call &call) {
  double handle = number_of(call, call.arguments[0], "handle");
  Bytes source = bytes_of(call, call.arguments[1], "source");
  int stream = integer_of(call, call.arguments[2], 0, kNumStreams, "stream");
  bool constant = !is_undefined(call, call.arguments[3]) && boolean_of(call, call.arguments[3], "constant");
  call.runtime().write(handle, source.data, source.size, stream, constant);
  return nullptr;
}

napi_value read_sync(Call &call) {
  double handle = number_of(call, call.arguments[0], "handle");
  Bytes target = bytes_of(call, call.arguments[1], "target");
  int stream = integer_of(call, call.arguments[2], 0, kNumStreams, "stream");
  call.runtime().read_now(handle, target.data, target.size, stream);
  return nullptr;
}

napi_value synchronize_sync(Call &call) {
  call.runtime().synchronize_now(integer_of(call, call.arguments[0], -1, kNumStreams, "stream"));
  return nullptr;
}

napi_value memory_stats(Call &call) {
  Memory::Stats stats = call.runtime().memory().stats();
  double live[kNumCategories], peak[kNumCategories];
  for (int i = 0; i < kNumCategories; i++) {
    live[i] = static_cast<double>(stats.live[i]);
    peak[i] = static_cast<double>(stats.peak[i]);
  }
  napi_value result = nullptr;
  napi_create_object(call.env, &result);
  set(call.env, result, "live", make_numbers(call.env, live, kNumCategories));
  set(call.env, result, "peak", make_numbers(call.env, peak, kNumCategories));
  set(call.env, result, "reserved", make_number(call.env, static_cast<double>(stats.reserved)));
  set(call.env, result, "tensors", make_number(call.env, static_cast<double>(stats.tensors)));
  return result;
}

napi_value reset_peak(Call &call) {
  call.runtime().memory().reset_peak();
  return nullptr;
}

napi_value stream_stats(Call &call) {
  double busy[kNumStreams], ops[kNumStreams];
  call.runtime().stream_stats(busy, ops);
  napi_value result = nullptr;
  napi_create_object(call.env, &result);
  set(call.env, result, "busySeconds", make_numbers(call.env, busy, kNumStreams));
  set(call.env, result, "ops", make_numbers(call.env, ops, kNumStreams));
  return result;
}

napi_value comm_create(Call &call) {
  napi_value options = call.arguments[0];
  int size = integer_of(call, property_of(call, options, "worldSize"), 1, 1 << 20, "worldSize");
  int rank = integer_of(call, property_of(call, options, "rank"), 0, size, "rank");
  std::string job = string_of(call, property_of(call, options, "jobId"), "jobId");
  double timeout =
      number_of(call, property_of(call, options, "timeoutSeconds"), "timeoutSeconds");
  if (!(timeout > 0)) throw Error{"ARGUMENT", text("timeoutSeconds is %g", timeout)};
  return make_string(call.env, call.runtime().comm_create(rank, size, job, timeout));
}

napi_value comm_connect(Call &call) {
  std::vector<std::string> facts;
  for (napi_value fact : elements_of(call, call.arguments[0], "facts"))
    facts.push_back(string_of(call, fact, "facts of a rank"));
  call.runtime().communicator().connect(facts);
  return nullptr;
}

napi_value comm_group(Call &call) {
  std::vector<int> ranks;
  for (napi_value rank : elements_of(call, call.arguments[0], "ranks"))
    ranks.push_back(integer_of(call, rank, 0, 1 << 20, "rank"));
  return make_number(call.env, call.runtime().comm_group(ranks));
}

napi_value comm_link(Call &call) {
  int group = integer_of(call, call.arguments[0], 0, 1 << 30, "group");
  int from = integer_of(call, call.arguments[1], 0, 1 << 20, "sender");
  int to = integer_of(call, call.arguments[2], 0, 1 << 20, "receiver");
  napi_value linked = nullptr;
  napi_get_boolean(call.env, call.runtime().comm_link(group, from, to), &linked);
  return linked;
}

napi_value comm_window(Call &call) {
  int group = integer_of(call, call.arguments[0], 0, 1 << 30, "group");
  napi_value known = nullptr;
  napi_get_boolean(call.env, call.runtime().comm_window(group, number_of(call, call.arguments[1], "handle")), &known);
  return known;
}

napi_value comm_drop_window(Call &call) {
  int group = integer_of(call, call.arguments[0], 0, 1 << 30, "group");
  call.runtime().comm_drop_window(group, number_of(call, call.arguments[1], "handle"));
  return nullptr;
}

napi_value recategorize(Call &call) {
  int category = integer_of(call, call.arguments[1], 0, kNumCategories, "category");
  call.runtime().recategorize(number_of(call, call.arguments[0], "handle"), category);
  return nullptr;
}

napi_value comm_abort(Call &call) {
  std::string code = string_of(call, call.arguments[0], "code");
  call.runtime().communicator().abort({code, string_of(call, call.arguments[1], "message")});
  return nullptr;
}

napi_value comm_destroy(Call &call) {
  call.runtime().comm_destroy();
  return nullptr;
}

template <napi_value (*body)(Call &)>
napi_value cold(napi_env env, napi_callback_info info) {
  return guarded(env, info, body);
}

struct Function {
  const char *name;
  napi_callback callback;
};

constexpr Function kFunctions[] = {
    {"alloc", alloc},
    {"view", view},
    {"free", free_},
    {"run", run},
    {"runLive", run_live},
    {"collective", collective},
    {"transfer", transfer},
    {"lastError", cold<last_error>},
    {"registerPacket", cold<register_packet>},
    {"ops", cold<ops>},
    {"configure", cold<configure>},
    {"device", cold<device>},
    {"devices", cold<devices>},
    {"hardware", cold<hardware>},
    {"write", cold<write>},
    {"read", cold<read>},
    {"readSync", cold<read_sync>},
    {"synchronize", cold<synchronize>},
    {"synchronizeSync", cold<synchronize_sync>},
    {"memoryStats", cold<memory_stats>},
    {"resetPeak", cold<reset_peak>},
    {"streamStats", cold<stream_stats>},
    {"recategorize", cold<recategorize>},
    {"graphBegin", cold<graph_begin>},
    {"graphEnd", cold<graph_end>},
    {"graphLaunch", cold<graph_launch>},
    {"graphDrop", cold<graph_drop>},
    {"openSwap", cold<open_swap>},
    {"closeSwap", cold<close_swap>},
    {"traceStart", cold<trace_start>},
    {"traceTake", cold<trace_take>},
    {"rangesOn", cold<ranges_on>},
    {"rangeStart", cold<range_start>},
    {"rangeEnd", cold<range_end>},
    {"commCreate", cold<comm_create>},
    {"commConnect", cold<comm_connect>},
    {"commGroup", cold<comm_group>},
    {"commLink", cold<comm_link>},
    {"commWindow", cold<comm_window>},
    {"commDropWindow", cold<comm_drop_window>},
    {"commAbort", cold<comm_abort>},
    {"commDestroy", cold<comm_destroy>},
};

// Streams end before Node-API takes down what they report to: hooks run in reverse order.
void stop(void *data) { static_cast<Environment *>(data)->runtime.reset(); }

napi_value init(napi_env env, napi_value exports) {
  Environment *environment = new Environment();
  environment->runtime = std::make_unique<Runtime>(cpu::backend());
  napi_set_instance_data(
      env, environment, [](napi_env, void *data, void *) { delete static_cast<Environment *>(data); },
      nullptr);
  open_arrivals(env, environment);
  napi_add_env_cleanup_hook(env, stop, environment);
  for (const Function &entry : kFunctions) {
    napi_value function = nullptr;
    napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.callback, environment, &function);
    set(env, exports, entry.name, function);
  }
  const char *levels[] = {"scalar", "avx2", "avx512", "avx512bf16"};
  set(env, exports, "version", make_string(env, kVersion));
  set(env, exports, "simd", make_string(env, levels[static_cast<int>(cpu::simd())]));
  return exports;
}

}  // namespace

napi_value guarded(napi_env env, napi_callback_info info, napi_value (*body)(Call &call)) {
  Call call{env};
  size_t count = sizeof call.arguments / sizeof call.arguments[0];
  void *data = nullptr;
  napi_get_cb_info(env, info, &count, call.arguments, nullptr, &data);
  call.environment = static_cast<Environment *>(data);
  try {
    return body(call);
  } catch (...) {
    napi_throw(env, make_error(env, caught()));
    return nullptr;
  }
}

}  // namespace zs::napi

NAPI_MODULE_INIT() { return zs::napi::init(env, exports); }
