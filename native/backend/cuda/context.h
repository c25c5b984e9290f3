// What a kernel's launcher finds in call->context: the device, memory for the time of one operation, and where a
// kernel on the device says that its data are wrong (an id outside its table), which is told at the next wait.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../backend.h"

namespace zs::cuda {

// Lies in pinned host memory that the device writes: value and end first, op last, with __threadfence_system()
// between. Any one of several wrong values will do.
struct Report {
  int32_t op;  // zs_op + 1; 0: nothing to tell
  int32_t unused;
  int64_t value, end;  // "[op] value is outside [0, end)"
};

// A launch as a launcher asks for it.
struct Launch {
  const void *kernel;
  unsigned grid[3], threads;
  void **arguments;
  size_t shared;
};

struct Context {
  int32_t device;
  int32_t num_sms;
  int32_t capability;          // 80, 90, 100, 120
  int32_t max_shared_bytes;    // per block, by opt-in
  int64_t l2_bytes;
  Report *report;              // as the device sees it
  // Scratch of the stream for this call: aligned to 256 bytes, not cleared, valid until the next call of
  // workspace() on this stream. NULL when there is none left.
  void *(*workspace)(Context *context, size_t bytes);
  // Where launches go instead of to the stream, while a graph's call is recorded or changed (graphs.cpp): a
  // cudaError_t. NULL: to the stream.
  int32_t (*launch)(Context *context, const Launch &launch);
};

inline Context *context_of(const zs_call *call) { return static_cast<Context *>(call->context); }

}  // namespace zs::cuda
