// A stream of a device as the core's tasks use it: the backend's functions, whose failures are thrown as
// Error, and host memory beside it. For one thread at a time.
#pragma once
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "../backend/backend.h"
#include "error.h"

namespace zs {

const char *status_code(int32_t status);  // of lib/binding/errors.ts

// Set when collectives between devices were broken off: no result of the device can be trusted any more.
struct Lost {
  std::atomic<bool> is{false};
  std::mutex lock;
  Error error;
  void tell(const Error &given) {
    std::lock_guard guard(lock);
    error = given;
    is.store(true);
  }
  void check() {
    if (!is.load(std::memory_order_acquire)) return;
    std::lock_guard guard(lock);
    throw error;
  }
};

class DeviceStream {
 public:
  // `lost` is looked at behind every wait.
  DeviceStream(const zs_backend &backend, bool high_priority, Lost *lost);
  ~DeviceStream();  // waits for what is queued
  DeviceStream(const DeviceStream &) = delete;
  DeviceStream &operator=(const DeviceStream &) = delete;

  const zs_stream &stream() const { return stream_; }
  zs_stream *own() { return &stream_; }
  void attach();  // by the thread that will use it, first
  void copy(void *target, const void *source, size_t bytes, zs_direction direction);
  void zero(void *target, size_t bytes);
  void synchronize();
  void settle_quietly();  // where a failure is being told already
  DeviceStream &aside();  // another stream, for copies beside this one's work; the same thread's
  void *record();  // an event; event_release() is the caller's
  void wait(void *event);
  // While a graph is captured: what cannot be part of one throws, saying so. Called by this stream's tasks.
  void capture(bool on) { capturing_ = on; }
  bool capturing() const { return capturing_; }
  class Moment moment();  // the stream's place now
  void wait_on_host(void *event);  // beside the thread that uses the stream
  // Pinned host memory, one piece that grows: whoever takes it synchronises before the next does.
  char *scratch(size_t bytes);
  const zs_backend &backend() const { return backend_; }

 private:
  void refuse_in_capture(const char *what) const;

  const zs_backend &backend_;
  Lost *const lost_;
  const bool high_priority_;
  zs_stream stream_ = {};
  bool capturing_ = false;
  std::unique_ptr<DeviceStream> aside_;
  char *scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
};

// An event behind a stream's tasks. `event` is set before the task that puts it there is done.
struct Mark {
  explicit Mark(const zs_backend &backend) : backend(backend) {}
  ~Mark() {
    if (event) backend.event_release(event);
  }
  const zs_backend &backend;
  void *event = nullptr;
};

// Device memory that host code works on: copied to pinned memory, and back. A range within one that was added
// before is that part of it; host memory stays where it is.
class Staging {
 public:
  Staging(DeviceStream *device) : device_(device) {}
  enum Use { in = 1, out = 2, in_out = 3 };
  int add(const void *data, size_t bytes, bool on_device, Use use);
  void fetch();        // and waits, also where nothing is staged
  void *at(int index) const;  // after fetch()
  void store();        // and waits

 private:
  struct Range {
    char *data;
    size_t bytes, offset;
    bool on_device;
    int use;
  };
  DeviceStream *device_;
  std::vector<Range> ranges_;
  size_t bytes_ = 0;
  char *scratch_ = nullptr;
};

// Names of what was queued on a device stream since it was last waited for: the suspects of a late error.
struct Launched {
  static constexpr uint64_t kKept = 8;
  std::atomic<const char *> names[kKept] = {};
  std::atomic<uint64_t> count{0}, settled{0};
  void add(const char *name) {
    uint64_t at = count.load(std::memory_order_relaxed);
    names[at % kKept].store(name, std::memory_order_relaxed);
    count.store(at + 1, std::memory_order_release);
  }
  // All up to the `end`th is known to be done.
  void settle(uint64_t end) {
    uint64_t before = settled.load(std::memory_order_relaxed);
    while (before < end && !settled.compare_exchange_weak(before, end, std::memory_order_release)) {
    }
  }
};

}  // namespace zs
