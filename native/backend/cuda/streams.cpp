// Streams, events from a pool, waits, and what is told at a wait: errors of the device, and what kernels reported.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <new>
#include <vector>

#include "backend.h"

namespace zs::cuda {

namespace {

constexpr size_t kScratchStep = size_t{32} << 20;  // what cuBLASLt likes on Hopper
constexpr size_t kAlign = 256;

constexpr const char *kOpNames[] = {
#define ZS_OP(name, outputs, inputs, scalars) #name,
#include "../../ops/ops.def"
#undef ZS_OP
};

std::mutex pool_lock;
std::vector<cudaEvent_t> pool, timed_pool;

void give_back(std::vector<cudaEvent_t> &to, void *event) {
  std::lock_guard guard(pool_lock);
  to.push_back(static_cast<cudaEvent_t>(event));
}

// An event of the pool, or a new one, behind all that the stream has.
int32_t record(std::vector<cudaEvent_t> &from, unsigned flags, zs_stream *stream, void **event, char *error) {
  cudaEvent_t taken = nullptr;
  {
    std::lock_guard guard(pool_lock);
    if (!from.empty()) {
      taken = from.back();
      from.pop_back();
    }
  }
  if (!taken)
    if (int32_t status = check(cudaEventCreateWithFlags(&taken, flags), error, "cudaEventCreate")) return status;
  int32_t status = check(cudaEventRecord(taken, stream_of(stream).stream), error, "cudaEventRecord");
  if (status == ZS_OK) *event = taken;
  else give_back(from, taken);
  return status;
}

// Work that is queued may still use the old memory; it grows a few times, then never again. What a graph has captured
// uses it at every launch.
void *workspace(Context *context, size_t bytes) {
  Stream &stream = *static_cast<Stream *>(context);
  if (bytes <= stream.scratch_bytes) return stream.scratch;
  if (graphs_alive()) {
    if (stream.scratch) stream.outgrown.push_back(stream.scratch);
  } else {
    if (cudaStreamSynchronize(stream.stream) != cudaSuccess) return nullptr;
    if (stream.scratch) cudaFree(stream.scratch);
  }
  stream.scratch = nullptr;
  stream.scratch_bytes = 0;
  size_t wanted = (bytes + kScratchStep - 1) / kScratchStep * kScratchStep;
  cudaError_t status = cudaMalloc(&stream.scratch, wanted);
  if (status != cudaSuccess) {
    cudaGetLastError();
    wanted = (bytes + kAlign - 1) / kAlign * kAlign;
    status = cudaMalloc(&stream.scratch, wanted);
  }
  if (status != cudaSuccess) {
    cudaGetLastError();
    stream.scratch = nullptr;
    return nullptr;
  }
  stream.scratch_bytes = wanted;
  return stream.scratch;
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  cudaDeviceGetAttribute(&value, which, opened_device());
  return value;
}

int32_t make(Stream &stream, bool high_priority, char *error) {
  int least = 0, greatest = 0;
  if (int32_t status = check(use_device(), error, "cudaSetDevice")) return status;
  if (int32_t status = check(cudaDeviceGetStreamPriorityRange(&least, &greatest), error, "cudaDeviceGetStreamPriority"))
    return status;
  int priority = high_priority ? greatest : least;
  if (int32_t status = check(cudaStreamCreateWithPriority(&stream.stream, cudaStreamNonBlocking, priority), error,
                             "cudaStreamCreate"))
    return status;
  void *report = nullptr;
  if (int32_t status = check(cudaHostAlloc(&report, sizeof(Report), cudaHostAllocMapped), error, "cudaHostAlloc"))
    return status;
  stream.told = new (report) Report{};
  void *seen = nullptr;
  if (int32_t status = check(cudaHostGetDevicePointer(&seen, report, 0), error, "cudaHostGetDevicePointer"))
    return status;
  stream.report = static_cast<Report *>(seen);
  stream.device = opened_device();
  stream.num_sms = attribute(cudaDevAttrMultiProcessorCount);
  stream.capability =
      attribute(cudaDevAttrComputeCapabilityMajor) * 10 + attribute(cudaDevAttrComputeCapabilityMinor);
  stream.max_shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  stream.l2_bytes = attribute(cudaDevAttrL2CacheSize);
  stream.workspace = workspace;
  return ZS_OK;
}

}  // namespace

int32_t stream_create(int32_t high_priority, zs_stream *stream, char *error) {
  Stream *made = new (std::nothrow) Stream{};
  if (!made) return check(cudaErrorMemoryAllocation, error, "stream_create");
  *stream = {nullptr, static_cast<Context *>(made)};
  int32_t status = make(*made, high_priority != 0, error);
  stream->native = made->stream;
  if (status != ZS_OK) stream_destroy(stream);
  return status;
}

void stream_destroy(zs_stream *stream) {
  Stream *one = &stream_of(stream);
  use_device();
  if (one->stream) cudaStreamSynchronize(one->stream);
  for (int i = 0; i < 2; i++) {
    if (one->halves[i]) cudaFreeHost(one->halves[i]);
    if (one->passed[i]) cudaEventDestroy(one->passed[i]);
  }
  if (one->scratch) cudaFree(one->scratch);
  for (void *scratch : one->outgrown) cudaFree(scratch);
  if (one->told) cudaFreeHost(one->told);
  if (one->stream) cudaStreamDestroy(one->stream);
  cudaGetLastError();
  delete one;
  *stream = {};
}

int32_t event_record(zs_stream *stream, void **event, char *error) {
  return record(pool, cudaEventDisableTiming, stream, event, error);
}

int32_t stream_wait(zs_stream *stream, void *event, char *error) {
  return check(cudaStreamWaitEvent(stream_of(stream).stream, static_cast<cudaEvent_t>(event), 0), error,
               "cudaStreamWaitEvent");
}

// A wait that is queued keeps what the event stood for, so that it may be recorded anew.
void event_release(void *event) { give_back(pool, event); }

int32_t moment_record(zs_stream *stream, void **moment, char *error) {
  return record(timed_pool, cudaEventDefault, stream, moment, error);
}

int32_t moment_between(void *from, void *to, double *nanoseconds, char *error) {
  float milliseconds = 0;
  cudaError_t status =
      cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(from), static_cast<cudaEvent_t>(to));
  *nanoseconds = status == cudaSuccess ? static_cast<double>(milliseconds) * 1e6 : NAN;
  if (status == cudaErrorNotReady) return cudaGetLastError(), ZS_OK;
  return check(status, error, "cudaEventElapsedTime");
}

void moment_release(void *moment) { give_back(timed_pool, moment); }

int32_t event_wait(zs_stream *stream, void *event, char *error) {
  if (int32_t status = check(use_device(), error, "cudaSetDevice")) return status;
  if (int32_t status = check(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), error, "cudaEventSynchronize"))
    return status;
  return take_report(stream_of(stream), error);
}

// By whoever waits first, on whichever thread.
int32_t take_report(Stream &stream, char *error) {
  static std::mutex lock;
  std::lock_guard guard(lock);
  Report &report = *stream.told;
  int32_t op = *static_cast<volatile int32_t *>(&report.op) - 1;
  if (op < 0) return ZS_OK;
  const char *name = op < ZS_OP_COUNT ? kOpNames[op] : "device";
  snprintf(error, ZS_ERROR_BYTES, "[%s] %lld is outside [0, %lld)", name, static_cast<long long>(report.value),
           static_cast<long long>(report.end));
  report = Report{};
  return ZS_BAD_ARGUMENT;
}

int32_t stream_synchronize(zs_stream *stream, char *error) {
  Stream &one = stream_of(stream);
  if (int32_t status = check(cudaStreamSynchronize(one.stream), error, "cudaStreamSynchronize")) return status;
  return take_report(one, error);
}

}  // namespace zs::cuda
