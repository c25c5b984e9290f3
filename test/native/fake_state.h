// The state of a device without hardware (fake_device.h): memory at addresses that trap when the host touches them,
// streams as threads that run what is queued late and at random times, and what is recorded for graphs.
#pragma once
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../native/backend/backend.h"

namespace zs::fake {

[[noreturn]] inline void die(const char *what) {
  fprintf(stderr, "fake device: %s\n", what);
  abort();
}

// What is recorded instead of done: each piece with those that must come before it. Threads take turns.
struct Capturing {
  struct Node {
    std::function<void()> body;
    std::vector<size_t> after;
  };
  std::mutex turn;
  std::vector<Node> nodes;
  std::vector<struct FakeStream *> streams;  // the first one began
  std::string invalid;                       // why there will be no graph; empty: there will
};

struct Event {
  std::mutex lock;
  std::condition_variable moved;
  bool done = false;
  uint64_t place = 0;  // in its stream: what was queued there up to it
  std::shared_ptr<Capturing> capturing;  // recorded while one was: only streams of it may wait
  std::vector<size_t> after;
};

struct FakeStream {
  std::mutex lock;
  std::condition_variable moved;
  std::deque<std::function<void()>> queue;
  uint64_t queued = 0, finished = 0;
  bool stop = false;
  std::string error;  // of what ran, told at the next wait
  int32_t status = ZS_OK;
  std::mt19937 random;
  std::thread thread;
  std::thread::id owner;  // threads that are ranks have streams of their own
  std::shared_ptr<Capturing> capturing;
  std::vector<size_t> after;                                // the next piece
  std::vector<size_t> *recorded = nullptr;                  // gets what is captured
  std::function<void(std::function<void()>)> replace;  // takes what would be queued
};

// A copy between host and device as it ran.
struct CopyRun {
  int32_t direction;
  double begin, end;  // seconds
};

struct Device {
  std::mutex lock;
  int copy_microseconds = 0;      // of each copy to and from pinned memory, which are then logged
  std::vector<CopyRun> copies;    // guarded by the lock
  size_t pinned = 0, most_pinned = 0;
  struct Region {
    char *real;
    size_t bytes;
    bool pinned;
  };
  std::map<uintptr_t, Region> regions;  // by where they begin
  std::vector<FakeStream *> streams;
  std::atomic<int> live_events{0};
  size_t limit = SIZE_MAX, taken = 0;
  int max_delay_microseconds = 0;
  bool ignore_waits = false;  // what goes wrong without them must show
  std::string launch_error;   // of the next copy; empty: none
  uint32_t seed = 1;
  // Its clock: begins somewhere, and is as much faster than the host's.
  uint64_t epoch = 0;
  double clock_rate = 1;
  std::atomic<int> live_moments{0};
  uint64_t clock() const;
};

inline uint64_t host_clock() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

inline uint64_t Device::clock() const {
  return static_cast<uint64_t>(static_cast<double>(host_clock() - epoch) * clock_rate);
}

inline Device device;

inline Device::Region *find(const void *data, size_t bytes) {
  uintptr_t at = reinterpret_cast<uintptr_t>(data);
  auto after = device.regions.upper_bound(at);
  if (after == device.regions.begin()) return nullptr;
  auto &[begin, region] = *--after;
  return at + bytes <= begin + region.bytes ? &region : nullptr;
}

// The memory behind a device address; also at the time when a kernel runs, so that memory which was given back
// too early is found out.
inline char *real(const void *data, size_t bytes) {
  std::lock_guard guard(device.lock);
  Device::Region *region = find(data, bytes);
  if (!region || region->pinned) die("a kernel touches memory that is not the device's");
  auto begin = --device.regions.upper_bound(reinterpret_cast<uintptr_t>(data));
  return region->real + (reinterpret_cast<uintptr_t>(data) - begin->first);
}

inline void need_pinned(const void *data, size_t bytes) {
  std::lock_guard guard(device.lock);
  Device::Region *region = find(data, bytes);
  if (!region || !region->pinned) die("memory that should be pinned is not");
}

inline void *allocate(size_t bytes) {
  std::lock_guard guard(device.lock);
  if (bytes > device.limit - device.taken) return nullptr;
  void *address = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  void *real = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED || real == MAP_FAILED) return nullptr;
  device.taken += bytes;
  device.regions[reinterpret_cast<uintptr_t>(address)] = {static_cast<char *>(real), bytes, false};
  return address;
}

inline void release(void *data, size_t bytes) {
  std::lock_guard guard(device.lock);
  auto found = device.regions.find(reinterpret_cast<uintptr_t>(data));
  if (found == device.regions.end() || found->second.bytes != bytes) die("released what was not allocated");
  if (!found->second.pinned) {
    device.taken -= bytes;
    munmap(found->second.real, bytes);
  } else {
    device.pinned -= bytes;
  }
  munmap(data, bytes);
  device.regions.erase(found);
}

inline void *host_allocate(size_t bytes) {
  void *data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  std::lock_guard guard(device.lock);
  device.regions[reinterpret_cast<uintptr_t>(data)] = {static_cast<char *>(data), bytes, true};
  device.pinned += bytes;
  device.most_pinned = std::max(device.most_pinned, device.pinned);
  return data;
}

inline void work(FakeStream *stream) {
  std::unique_lock guard(stream->lock);
  for (;;) {
    stream->moved.wait(guard, [&] { return stream->stop || !stream->queue.empty(); });
    if (stream->queue.empty()) return;
    std::function<void()> next = std::move(stream->queue.front());
    stream->queue.pop_front();
    int delay = device.max_delay_microseconds;
    bool sleeps = delay > 0 && stream->random() % 4 == 0;
    int microseconds = sleeps ? static_cast<int>(stream->random() % static_cast<unsigned>(delay)) : 0;
    guard.unlock();
    if (sleeps) usleep(static_cast<useconds_t>(microseconds));
    next();
    next = nullptr;
    guard.lock();
    stream->finished++;
    stream->moved.notify_all();
  }
}

inline FakeStream *native(const zs_stream *stream) { return static_cast<FakeStream *>(stream->native); }

inline void record(FakeStream *stream, std::function<void()> body) {
  Capturing &capturing = *stream->capturing;
  std::unique_lock guard(capturing.turn, std::try_to_lock);
  if (!guard.owns_lock()) die("two threads change a graph at once");
  if (stream->recorded) stream->recorded->push_back(capturing.nodes.size());
  capturing.nodes.push_back({std::move(body), stream->after});
  stream->after = {capturing.nodes.size() - 1};
}

inline void queue(FakeStream *stream, std::function<void()> body) {
  if (stream->replace) return stream->replace(std::move(body));
  if (stream->capturing) return record(stream, std::move(body));
  std::lock_guard guard(stream->lock);
  stream->queue.push_back(std::move(body));
  stream->queued++;
  stream->moved.notify_all();
}

inline int32_t tell(char *error, int32_t status, const std::string &message) {
  snprintf(error, ZS_ERROR_BYTES, "%s", message.c_str());
  return status;
}

// What a captured stream may not do makes all of the capture worthless.
inline bool is_captured(FakeStream *stream, const char *what, char *error) {
  if (!stream->capturing) return false;
  stream->capturing->invalid = what;
  tell(error, ZS_DEVICE_ERROR, std::string(what) + ": operation not permitted when stream is capturing");
  return true;
}

// Something that goes wrong when it runs, as device code does.
inline void fail_later(FakeStream *stream, int32_t status, const std::string &message) {
  queue(stream, [stream, status, message] {
    std::lock_guard guard(stream->lock);
    stream->status = status;
    stream->error = message;
  });
}

}  // namespace zs::fake
