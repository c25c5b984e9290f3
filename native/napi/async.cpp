// Promises: a task at the end of a stream reaches the event loop through one thread-safe function per
// environment. It keeps the process alive only while a promise is pending.
#include "environment.h"

namespace zs::napi {

namespace {

struct Pending {
  Environment *environment;
  napi_deferred deferred;
  napi_ref target;  // keeps the array that is read into; nullptr: none
  int remaining;    // arrivals to come
  std::shared_ptr<Failure> failure;
};

struct Arrival {
  Pending *pending;
  std::shared_ptr<Failure> failure;
};

void settle(napi_env env, Pending *pending) {
  napi_value value = nullptr;
  if (pending->failure) {
    napi_reject_deferred(env, pending->deferred, make_error(env, pending->failure->error));
  } else {
    napi_get_undefined(env, &value);
    napi_resolve_deferred(env, pending->deferred, value);
  }
  if (pending->target) napi_delete_reference(env, pending->target);
  if (--pending->environment->pending == 0)
    napi_unref_threadsafe_function(env, pending->environment->arrivals);
  delete pending;
}

// On the event loop; without `env` when the environment is ending.
void arrived(napi_env env, napi_value, void *, void *data) {
  std::unique_ptr<Arrival> arrival(static_cast<Arrival *>(data));
  Pending *pending = arrival->pending;
  if (!env) {
    if (--pending->remaining == 0) delete pending;
    return;
  }
  if (arrival->failure) {
    pending->environment->runtime->told(*arrival->failure);
    if (!pending->failure) pending->failure = arrival->failure;
  }
  if (--pending->remaining == 0) settle(env, pending);
}

// Queues work that will report to a new promise; `queue` returns how often it will.
template <class Queue>
napi_value promise(Call &call, napi_value target, Queue queue) {
  Environment *environment = call.environment;
  auto pending = std::make_unique<Pending>(Pending{environment, nullptr, nullptr, 1, nullptr});
  napi_threadsafe_function arrivals = environment->arrivals;
  Pending *raw = pending.get();
  raw->remaining = queue([arrivals, raw](std::shared_ptr<Failure> failure) {
    napi_call_threadsafe_function(arrivals, new Arrival{raw, std::move(failure)},
                                  napi_tsfn_nonblocking);
  });
  napi_value result = nullptr;
  napi_create_promise(call.env, &raw->deferred, &result);
  if (target) napi_create_reference(call.env, target, 1, &raw->target);
  if (environment->pending++ == 0)
    napi_ref_threadsafe_function(call.env, environment->arrivals);
  pending.release();
  return result;
}

}  // namespace

void open_arrivals(napi_env env, Environment *environment) {
  napi_value name = make_string(env, "zeroshard");
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr,
                                  arrived, &environment->arrivals);
  napi_unref_threadsafe_function(env, environment->arrivals);
}

napi_value read(Call &call) {
  double handle = number_of(call, call.arguments[0], "handle");
  Bytes target = bytes_of(call, call.arguments[1], "target");
  int stream = integer_of(call, call.arguments[2], 0, kNumStreams, "stream");
  return promise(call, call.arguments[1], [&](Runtime::Done done) {
    call.runtime().read(handle, target.data, target.size, stream, std::move(done));
    return 1;
  });
}

napi_value synchronize(Call &call) {
  int stream = integer_of(call, call.arguments[0], -1, kNumStreams, "stream");
  return promise(call, nullptr, [&](Runtime::Done done) {
    return call.runtime().synchronize(stream, std::move(done));
  });
}

}  // namespace zs::napi
