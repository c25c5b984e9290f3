// What the streams did, task by task, in a ring that keeps the newest. Off until started: then a task
// costs one relaxed load. Times are nanoseconds of CLOCK_MONOTONIC, which all processes of a host
// share (and process.hrtime reads); on a device (device_clock.h) they are those of the device's work.
#pragma once
#include <time.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

namespace zs {

inline uint64_t monotonic_now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

// What a task is beyond its name. bytes: of the whole array, as nccl-tests count a collective's size.
struct TraceDetail {
  int32_t kind = -1;  // of collective; -1: none
  int32_t group = -1, group_size = 0, dtype = -1;
  int64_t count = 0, bytes = 0;
  double flops = 0;
};

struct TraceRecord {
  const char *name = nullptr;  // lives as long as the program
  int32_t stream = 0;
  uint64_t queued = 0, launched = 0, start = 0, end = 0;  // on the host launched is start
  TraceDetail detail;
};

class Trace {
 public:
  bool on() const { return on_.load(std::memory_order_relaxed); }
  // Keeps the newest `capacity` records from now on; 0: none, tracing ends. Forgets earlier ones.
  void start(size_t capacity);
  void add(const TraceRecord &record);
  // Records since the last call, oldest first; `dropped`: how many more had no room.
  std::vector<TraceRecord> take(uint64_t *dropped);

 private:
  alignas(64) std::atomic<bool> on_{false};  // apart from what streams write
  alignas(64) std::mutex lock_;
  std::vector<TraceRecord> ring_;
  uint64_t begin_ = 0, end_ = 0;  // positions without end; modulo the size they are places
  uint64_t dropped_ = 0;
};

// Floating-point operations of a kernel's matrix products (2 a multiply-add) from its scalars, counting
// the pairs that a causal mask lets through; 0 for other kernels. `name`: as op_info has it.
double kernel_flops(const char *name, const double *scalars);

}  // namespace zs
