// When a device did what streams were given, on the host's clock (CLOCK_MONOTONIC): moments are put around a task while a
// trace is on, and read once the device has passed them. The device's clock is laid over the host's at a reference moment,
// again each half second, and what they drift apart between two of these is taken out.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

#include "device.h"
#include "trace.h"

namespace zs {

// A point in a stream's work. Owned.
class Moment {
 public:
  Moment(const zs_backend &backend, void *moment) : backend_(&backend), moment_(moment) {}
  Moment(Moment &&other) noexcept : backend_(other.backend_), moment_(other.moment_) { other.moment_ = nullptr; }
  Moment &operator=(Moment &&other) noexcept {
    std::swap(moment_, other.moment_);
    return *this;
  }
  ~Moment() {
    if (moment_) backend_->moment_release(moment_);
  }
  void *get() const { return moment_; }

 private:
  const zs_backend *backend_;
  void *moment_;
};

// Of a runtime; any thread.
class DeviceClock {
 public:
  DeviceClock(const zs_backend &backend, Lost *lost) : backend_(backend), lost_(lost) {}
  // The host's time of a moment; false: the device has not come to it. Throws where the device fails.
  bool read(const Moment &moment, uint64_t *nanoseconds);

 private:
  struct Reference {
    Moment moment;
    double host;  // ns
  };
  Reference calibrate();
  double between(const Moment &from, const Moment &to);

  const zs_backend &backend_;
  Lost *const lost_;
  std::mutex lock_;
  std::unique_ptr<DeviceStream> stream_;  // for reference moments, so that no work is in their way
  std::unique_ptr<Reference> reference_;
  double rate_ = 1;  // the host's nanoseconds in one of the device
};

// What a stream has launched while tracing and the device has not passed yet, in order.
class LaunchedTasks {
 public:
  void add(const TraceRecord &record, Moment begin, Moment end);
  void clear();
  // To the trace with all that has passed. `least`: only where so many wait.
  void collect(DeviceClock &clock, Trace &trace, size_t least = 1);

 private:
  struct Task {
    TraceRecord record;
    Moment begin, end;
  };
  std::mutex lock_;
  std::deque<Task> tasks_;
  uint64_t last_end_ = 0;
};

}  // namespace zs
