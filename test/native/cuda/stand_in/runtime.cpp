// The CUDA runtime of the stand-in: what shim/cuda_runtime_api.h declares, on memory.h and streams.h. As strict as CUDA or
// stricter: asynchronous copies only to and from pinned memory, device memory only where there is some, a kernel that
// fails breaks the device. ZEROSHARD_STAND_IN_DEVICES says how many devices there are (1).
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "memory.h"
#include "streams.h"

struct CUevent_st {
  std::shared_ptr<zs::stand_in::Moment> moment;
};

namespace {

using namespace zs::stand_in;

thread_local cudaError_t last = cudaSuccess;

cudaError_t answer(cudaError_t error) {
  if (error == cudaSuccess && failure()) error = cudaErrorLaunchFailure;
  if (error != cudaSuccess && error != cudaErrorNotReady) last = error;
  return error;
}
cudaError_t answer(bool right) { return answer(right ? cudaSuccess : cudaErrorInvalidValue); }

int num_devices() {
  const char *said = getenv("ZEROSHARD_STAND_IN_DEVICES");
  return said ? atoi(said) : 1;
}
bool there_is(int device) { return device >= 0 && device < num_devices(); }

Stream *of(cudaStream_t stream) { return static_cast<Stream *>(stream); }

// Where a copy may go to or come from.
bool fits(const void *data, size_t bytes, bool device) { return device ? on_device(data, bytes) : is_pinned(data, bytes); }

}  // namespace

cudaError_t cudaGetDeviceCount(int *count) {
  *count = num_devices();
  return answer(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) { return answer(there_is(device) ? cudaSuccess : cudaErrorInvalidDevice); }

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  if (!there_is(device)) return answer(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 3; break;
    case cudaDevAttrL2CacheSize: *value = 50 << 20; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 * 1024; break;
    default: return answer(cudaErrorInvalidValue);
  }
  return answer(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
  if (!there_is(device)) return answer(cudaErrorInvalidDevice);
  *properties = {};
  snprintf(properties->name, sizeof properties->name, "stand-in on the host");
  properties->uuid.bytes[15] = static_cast<char>(device);
  properties->totalGlobalMem = memory_limit();
  properties->major = 9;
  properties->multiProcessorCount = 3;
  return answer(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  *total = memory_limit();
  *free = *total - memory_taken();
  return answer(cudaSuccess);
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last;
  last = cudaSuccess;
  return error;
}

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "the driver is too old";
    case cudaErrorNoDevice: return "no device";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorLaunchFailure: return failure() ? failure() : "launch failure";
    default: return "invalid argument";
  }
}

cudaError_t cudaMalloc(void **data, size_t bytes) {
  *data = take(bytes, false);
  return answer(*data ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void *data) {
  if (!data) return answer(cudaSuccess);
  synchronize_all();
  return answer(give_back(data, false));
}
cudaError_t cudaHostAlloc(void **data, size_t bytes, unsigned) {
  *data = take(bytes, true);
  return answer(*data ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void *data) {
  if (!data) return answer(cudaSuccess);
  synchronize_all();
  return answer(give_back(data, true));
}
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned) {
  *device = host;
  return answer(is_pinned(host, 1));
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0, *greatest = -5;
  return answer(cudaSuccess);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
  if (flags != cudaStreamNonBlocking || priority > 0 || priority < -5) return answer(cudaErrorInvalidValue);
  *stream = new Stream;
  return answer(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete of(stream);
  return answer(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  of(stream)->synchronize();
  return answer(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->moment) of(stream)->wait_for(event->moment);
  return answer(cudaSuccess);
}
cudaError_t cudaDeviceSynchronize() {
  synchronize_all();
  return answer(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  *event = new CUevent_st;
  return answer(cudaSuccess);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return answer(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->moment = of(stream)->record();
  return answer(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return answer(passed(event->moment) ? cudaSuccess : cudaErrorNotReady); }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
  if (!passed(from->moment) || !passed(to->moment)) return answer(cudaErrorNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(to->moment->time - from->moment->time).count();
  return answer(cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  wait(event->moment);
  return answer(cudaSuccess);
}

cudaError_t cudaMemcpy(void *target, const void *source, size_t bytes, cudaMemcpyKind kind) {
  const bool from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  if ((from && !on_device(source, bytes)) || (to && !on_device(target, bytes))) return answer(cudaErrorInvalidValue);
  synchronize_all();
  Running running;
  memmove(target, source, bytes);
  return answer(cudaSuccess);
}
cudaError_t cudaMemcpyAsync(void *target, const void *source, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0) return answer(cudaSuccess);
  const bool from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  if (!fits(source, bytes, from) || !fits(target, bytes, to)) return answer(cudaErrorInvalidValue);
  stream->add([=] { memmove(target, source, bytes); });
  return answer(cudaSuccess);
}
cudaError_t cudaMemsetAsync(void *target, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return answer(cudaSuccess);
  if (!on_device(target, bytes)) return answer(cudaErrorInvalidValue);
  stream->add([=] { memset(target, value, bytes); });
  return answer(cudaSuccess);
}
