// The CUDA backend's inside: the device that the process opened, its streams, and errors as the C ABI wants them.
#pragma once
#include <cuda_runtime_api.h>

#include <vector>

#include "context.h"

namespace zs::cuda {

extern const zs_kernel kernels[ZS_OP_COUNT];

// What zs_stream.context points to; context.h's part is for kernels.
struct Stream : Context {
  cudaStream_t stream = nullptr;
  Report *told = nullptr;  // the report, as the host sees it
  void *scratch = nullptr;
  size_t scratch_bytes = 0;
  std::vector<void *> outgrown;  // scratch that graphs may still use
  // Pinned memory that pageable copies pass through: one half is filled while the other travels.
  static constexpr size_t kHalf = size_t{4} << 20;
  char *halves[2] = {};
  cudaEvent_t passed[2] = {};
};

inline Stream &stream_of(zs_stream *stream) { return *static_cast<Stream *>(static_cast<Context *>(stream->context)); }

// The opened device becomes the calling thread's.
cudaError_t use_device();
int opened_device();  // -1: none

// 0, or the status of the error, with its words (after `what`) in `error`. Errors that do not stay are cleared.
int32_t check(cudaError_t status, char *error, const char *what);

// graphs.cpp
extern const zs_graphs graphs;
bool graphs_alive();  // or being captured

// streams.cpp, copies.cpp
int32_t stream_create(int32_t high_priority, zs_stream *stream, char *error);
void stream_destroy(zs_stream *stream);
int32_t event_record(zs_stream *stream, void **event, char *error);
int32_t stream_wait(zs_stream *stream, void *event, char *error);
void event_release(void *event);
int32_t event_wait(zs_stream *stream, void *event, char *error);
int32_t stream_synchronize(zs_stream *stream, char *error);
int32_t moment_record(zs_stream *stream, void **moment, char *error);
int32_t moment_between(void *from, void *to, double *nanoseconds, char *error);
void moment_release(void *moment);
int32_t take_report(Stream &stream, char *error);
int32_t copy(zs_stream *stream, void *target, const void *source, size_t bytes, int32_t direction, char *error);
int32_t zero(zs_stream *stream, void *target, size_t bytes, char *error);

}  // namespace zs::cuda
