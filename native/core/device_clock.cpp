#include "device_clock.h"

#include <algorithm>
#include <cmath>

namespace zs {

namespace {

constexpr int kTries = 5;
constexpr double kValid = 5e8;          // ns until a reference is taken anew
constexpr double kLeastForRate = 1e8;   // ns between two references that tell how fast a clock is
constexpr double kMostDrift = 0.05;     // more is no clock's drift

void check(int32_t status, const char *error) {
  if (status != ZS_OK) throw Error{status_code(status), error[0] ? error : "the device gave no reason"};
}

}  // namespace

double DeviceClock::between(const Moment &from, const Moment &to) {
  char error[ZS_ERROR_BYTES] = "";
  double nanoseconds = 0;
  check(backend_.moment_between(from.get(), to.get(), &nanoseconds, error), error);
  return nanoseconds;
}

// The device passes the moment between two looks at the host's clock: of some tries the one with the least between them.
DeviceClock::Reference DeviceClock::calibrate() {
  if (!stream_) stream_ = std::make_unique<DeviceStream>(backend_, true, lost_);
  std::unique_ptr<Reference> best;
  uint64_t least = UINT64_MAX;
  for (int i = 0; i < kTries; i++) {
    uint64_t before = monotonic_now();
    Moment moment = stream_->moment();
    stream_->synchronize();
    uint64_t width = monotonic_now() - before;
    if (width >= least) continue;
    least = width;
    best = std::make_unique<Reference>(
        Reference{std::move(moment), static_cast<double>(before) + static_cast<double>(width) / 2});
  }
  return std::move(*best);
}

bool DeviceClock::read(const Moment &moment, uint64_t *nanoseconds) {
  std::lock_guard guard(lock_);
  if (!reference_) reference_ = std::make_unique<Reference>(calibrate());
  double apart = between(reference_->moment, moment);
  if (std::isnan(apart)) return false;
  if (apart > kValid) {
    Reference next = calibrate();
    double device = between(reference_->moment, next.moment);
    double rate = (next.host - reference_->host) / device;
    if (device > kLeastForRate && std::abs(rate - 1) < kMostDrift) rate_ = rate;
    *reference_ = std::move(next);
    apart = between(reference_->moment, moment);
  }
  *nanoseconds = static_cast<uint64_t>(std::max(0.0, reference_->host + apart * rate_));
  return true;
}

void LaunchedTasks::add(const TraceRecord &record, Moment begin, Moment end) {
  std::lock_guard guard(lock_);
  tasks_.push_back({record, std::move(begin), std::move(end)});
}

void LaunchedTasks::clear() {
  std::lock_guard guard(lock_);
  tasks_.clear();
}

void LaunchedTasks::collect(DeviceClock &clock, Trace &trace, size_t least) {
  std::lock_guard guard(lock_);
  if (tasks_.size() < least) return;
  while (!tasks_.empty()) {
    Task &task = tasks_.front();
    uint64_t end = 0, begin = 0;
    if (!clock.read(task.end, &end) || !clock.read(task.begin, &begin)) return;
    // One task after another, whatever the clock's last digits say.
    task.record.start = std::max({begin, last_end_, task.record.launched});
    task.record.end = last_end_ = std::max(end, task.record.start);
    trace.add(task.record);
    tasks_.pop_front();
  }
}

}  // namespace zs
