// A task as it lies in a stream's ring, and what it waits for on a device.
#pragma once
#include "stream.h"

namespace zs {

inline constexpr size_t kTaskAlign = 64;

// What a task waits for on the device: events, put there by jobs with these sequence numbers.
struct Marks {
  uint64_t sequence[kNumStreams] = {};
  std::shared_ptr<Mark> mark[kNumStreams];
};

// Followed by the tensors and scalars of a kernel.
struct alignas(kTaskAlign) Stream::Task {
  size_t bytes;  // to the next task
  uint64_t sequence;
  uint64_t queued;  // when; 0 where no trace was on
  Waits waits;
  const char *name;  // nullptr: padding at the end of the ring
  zs_kernel kernel;
  void *context;
  Job *job;
  Marks *marks;  // owned; nullptr: none
  int32_t num_tensors, num_scalars;
  zs_tensor *tensors() { return reinterpret_cast<zs_tensor *>(this + 1); }
  double *scalars() { return reinterpret_cast<double *>(tensors() + num_tensors); }
};

}  // namespace zs
