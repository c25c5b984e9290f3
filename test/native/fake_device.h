// A device without hardware, for tests of the core: its memory is at addresses that trap when the host touches them,
// its streams are threads that run what is queued late and at random times, its events are as CUDA's. Kernels are
// closures over the real memory behind those addresses. This is its table; its state is in fake_state.h.
#pragma once
#include "fake_state.h"

namespace zs::fake {

inline int32_t stream_create(int32_t, zs_stream *stream, char *) {
  FakeStream *made = new FakeStream;
  made->owner = std::this_thread::get_id();
  std::lock_guard guard(device.lock);
  made->random.seed(device.seed++);
  made->thread = std::thread([made] { work(made); });
  *stream = {made, made};
  device.streams.push_back(made);
  return ZS_OK;
}

inline thread_local bool attached = false;

inline int32_t attach(char *) {
  attached = true;
  return ZS_OK;
}

inline int32_t stream_synchronize(zs_stream *stream, char *error) {
  FakeStream *one = native(stream);
  if (is_captured(one, "stream_synchronize", error)) return ZS_DEVICE_ERROR;
  std::unique_lock guard(one->lock);
  uint64_t all = one->queued;
  one->moved.wait(guard, [&] { return one->finished >= all; });
  if (one->status == ZS_OK) return ZS_OK;
  int32_t status = one->status;
  one->status = ZS_OK;
  return tell(error, status, one->error);
}

inline void stream_destroy(zs_stream *stream) {
  FakeStream *one = native(stream);
  {
    std::lock_guard guard(one->lock);
    one->stop = true;
    one->moved.notify_all();
  }
  one->thread.join();
  std::lock_guard guard(device.lock);
  std::erase(device.streams, one);
  delete one;
}

using Handle = std::shared_ptr<Event>;

inline int32_t event_record(zs_stream *stream, void **event, char *) {
  Handle made = std::make_shared<Event>();
  *event = new Handle(made);
  device.live_events++;
  if (FakeStream *one = native(stream); one->capturing) {
    made->capturing = one->capturing;
    made->after = one->after;
    return ZS_OK;
  }
  queue(native(stream), [made] {
    std::lock_guard guard(made->lock);
    made->done = true;
    made->moved.notify_all();
  });
  std::lock_guard guard(native(stream)->lock);
  made->place = native(stream)->queued;
  return ZS_OK;
}

// A stream that waits for what is captured is captured, too.
inline int32_t join(FakeStream *stream, const Event &event, char *error) {
  std::shared_ptr<Capturing> capturing = stream->capturing ? stream->capturing : event.capturing;
  if (capturing != event.capturing) {
    capturing->invalid = "a wait for what is not captured";
    return tell(error, ZS_DEVICE_ERROR, "dependency created on uncaptured work in another stream");
  }
  std::unique_lock guard(capturing->turn, std::try_to_lock);
  if (!guard.owns_lock()) die("two threads change a graph at once");
  if (!stream->capturing) {
    std::lock_guard idle(stream->lock);
    if (stream->finished != stream->queued) die("a stream joins a capture with work left");
    stream->capturing = capturing;
    capturing->streams.push_back(stream);
  }
  if (!device.ignore_waits) stream->after.insert(stream->after.end(), event.after.begin(), event.after.end());
  return ZS_OK;
}

inline int32_t stream_wait(zs_stream *stream, void *event, char *error) {
  Handle waited = *static_cast<Handle *>(event);
  if (native(stream)->capturing || waited->capturing) return join(native(stream), *waited, error);
  if (device.ignore_waits) return ZS_OK;
  queue(native(stream), [waited] {
    std::unique_lock guard(waited->lock);
    waited->moved.wait(guard, [&] { return waited->done; });
  });
  return ZS_OK;
}

inline void event_release(void *event) {
  device.live_events--;
  delete static_cast<Handle *>(event);
}

// The device's time when its stream came to it; 0: not yet.
using Moment = std::shared_ptr<std::atomic<uint64_t>>;

inline int32_t moment_record(zs_stream *stream, void **moment, char *) {
  Moment made = std::make_shared<std::atomic<uint64_t>>(0);
  *moment = new Moment(made);
  device.live_moments++;
  queue(native(stream), [made] { made->store(device.clock()); });
  return ZS_OK;
}

inline int32_t moment_between(void *from, void *to, double *nanoseconds, char *) {
  uint64_t a = (*static_cast<Moment *>(from))->load(), b = (*static_cast<Moment *>(to))->load();
  *nanoseconds = a && b ? static_cast<double>(static_cast<int64_t>(b - a)) : NAN;
  return ZS_OK;
}

inline void moment_release(void *moment) {
  device.live_moments--;
  delete static_cast<Moment *>(moment);
}

inline int32_t event_wait(zs_stream *stream, void *event, char *error) {
  Handle waited = *static_cast<Handle *>(event);
  FakeStream *one = native(stream);  // where it was recorded
  std::unique_lock guard(one->lock);
  one->moved.wait(guard, [&] { return one->finished >= waited->place; });
  if (one->status == ZS_OK) return ZS_OK;
  int32_t status = one->status;
  one->status = ZS_OK;
  return tell(error, status, one->error);
}

inline int32_t synchronize(char *) {
  std::vector<FakeStream *> all;
  {
    std::lock_guard guard(device.lock);
    for (FakeStream *one : device.streams)
      if (one->owner == std::this_thread::get_id()) all.push_back(one);
  }
  for (FakeStream *one : all) {
    if (one->capturing) die("a wait for all while something is captured");
    std::unique_lock guard(one->lock);
    uint64_t last = one->queued;
    one->moved.wait(guard, [&] { return one->finished >= last; });
  }
  return ZS_OK;
}

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Takes its time where copies do.
template <class Body>
inline void timed(int32_t direction, Body body) {
  if (device.copy_microseconds == 0) return body();
  double begin = seconds_now();
  usleep(static_cast<useconds_t>(device.copy_microseconds));
  body();
  std::lock_guard guard(device.lock);
  device.copies.push_back({direction, begin, seconds_now()});
}

inline int32_t copy(zs_stream *stream, void *target, const void *source, size_t bytes, int32_t direction, char *error) {
  if (!device.launch_error.empty()) {
    std::string message = std::move(device.launch_error);
    device.launch_error.clear();
    return tell(error, ZS_DEVICE_ERROR, message);
  }
  FakeStream *one = native(stream);
  bool pageable = direction == ZS_TO_DEVICE || direction == ZS_TO_HOST;
  if (pageable && is_captured(one, "copy", error)) return ZS_DEVICE_ERROR;
  switch (direction) {
    case ZS_TO_DEVICE: {
      auto staged = std::make_shared<std::vector<char>>(static_cast<const char *>(source),
                                                        static_cast<const char *>(source) + bytes);
      queue(one, [=] { memcpy(real(target, bytes), staged->data(), bytes); });
      return ZS_OK;
    }
    case ZS_TO_HOST: {
      queue(one, [=] { memcpy(target, real(source, bytes), bytes); });
      return stream_synchronize(stream, error);
    }
    case ZS_ON_DEVICE: queue(one, [=] { memmove(real(target, bytes), real(source, bytes), bytes); }); return ZS_OK;
    case ZS_TO_DEVICE_PINNED:
      need_pinned(source, bytes);
      queue(one, [=] { timed(direction, [=] { memcpy(real(target, bytes), source, bytes); }); });
      return ZS_OK;
    case ZS_TO_HOST_PINNED:
      need_pinned(target, bytes);
      queue(one, [=] { timed(direction, [=] { memcpy(target, real(source, bytes), bytes); }); });
      return ZS_OK;
    default: return tell(error, ZS_BAD_ARGUMENT, "no such direction");
  }
}

inline int32_t zero(zs_stream *stream, void *target, size_t bytes, char *) {
  queue(native(stream), [=] { memset(real(target, bytes), 0, bytes); });
  return ZS_OK;
}

inline zs_backend table(const zs_kernel *kernels) {
  zs_backend made = {};
  made.abi = ZS_BACKEND_ABI;
  made.struct_size = sizeof made;
  made.name = "fake";
  made.allocate = allocate;
  made.release = release;
  made.kernels = kernels;
  made.num_kernels = ZS_OP_COUNT;
  made.attach = attach;
  made.stream_create = stream_create;
  made.stream_destroy = stream_destroy;
  made.event_record = event_record;
  made.stream_wait = stream_wait;
  made.event_release = event_release;
  made.event_wait = event_wait;
  made.stream_synchronize = stream_synchronize;
  made.synchronize = synchronize;
  made.copy = copy;
  made.zero = zero;
  made.host_allocate = host_allocate;
  made.host_release = release;
  made.moment_record = moment_record;
  made.moment_between = moment_between;
  made.moment_release = moment_release;
  return made;
}

}  // namespace zs::fake
