// The table of the CUDA backend, the opening of its device, and device memory: plain cudaMalloc, in the segments that
// the core's caching allocator asks for and accounts.
#include "backend.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "libraries/find.h"
#include "../graphs.h"
#include "nccl.h"

namespace zs::cuda {

namespace {

constexpr int kLeastCapability = 80;
std::atomic<int> opened{-1};
std::mutex open_lock;

void *allocate(size_t bytes) {
  void *data = nullptr;
  if (use_device() == cudaSuccess && cudaMalloc(&data, bytes) == cudaSuccess) return data;
  cudaGetLastError();
  return nullptr;
}

void release(void *data, size_t) {
  if (use_device() == cudaSuccess) cudaFree(data);
}

void *host_allocate(size_t bytes) {
  void *data = nullptr;
  if (use_device() == cudaSuccess && cudaHostAlloc(&data, bytes, cudaHostAllocPortable) == cudaSuccess) return data;
  cudaGetLastError();
  return nullptr;
}

void host_release(void *data, size_t) {
  if (use_device() == cudaSuccess) cudaFreeHost(data);
}

int32_t attach(char *error) { return check(use_device(), error, "cudaSetDevice"); }

int32_t synchronize(char *error) {
  if (int32_t status = check(use_device(), error, "cudaSetDevice")) return status;
  return check(cudaDeviceSynchronize(), error, "cudaDeviceSynchronize");
}

int32_t device_info(int32_t device, zs_device_info *info, char *error) {
  int count = 0;
  if (device == -1) device = opened_device();
  if (int32_t status = check(cudaGetDeviceCount(&count), error, "cudaGetDeviceCount")) return status;
  if (device < 0 || device >= count) {
    snprintf(error, ZS_ERROR_BYTES, "there is no device %d, there are %d", device, count);
    return ZS_BAD_ARGUMENT;
  }
  cudaDeviceProp properties;
  if (int32_t status = check(cudaGetDeviceProperties(&properties, device), error, "cudaGetDeviceProperties"))
    return status;
  *info = {};
  snprintf(info->name, sizeof info->name, "%.127s", properties.name);
  const unsigned char *uuid = reinterpret_cast<const unsigned char *>(properties.uuid.bytes);
  for (int i = 0; i < 16; i++) snprintf(info->uuid + 2 * i, 3, "%02x", uuid[i]);
  info->total_bytes = properties.totalGlobalMem;
  info->capability = properties.major * 10 + properties.minor;
  info->multiprocessors = properties.multiProcessorCount;
  info->index = device;
  cudaDriverGetVersion(&info->driver);
  cudaRuntimeGetVersion(&info->runtime);
  if (device != opened_device()) return ZS_OK;  // asking would make a context there
  size_t free_bytes = 0, total = 0;
  if (cudaMemGetInfo(&free_bytes, &total) == cudaSuccess) info->free_bytes = free_bytes;
  return ZS_OK;
}

// Why there is no device to open, and what helps; empty: there are some.
void explain(cudaError_t status, int driver, char *error, size_t size) {
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (driver == 0)
    snprintf(error, size, "there is no NVIDIA driver (libcuda.so.1); install one for CUDA %d.%d or newer, or use cpu",
             runtime / 1000, runtime % 1000 / 10);
  else if (status == cudaErrorInsufficientDriver)
    snprintf(error, size, "the NVIDIA driver is for CUDA %d.%d, this needs %d.%d; update the driver", driver / 1000,
             driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  else if (status == cudaErrorNoDevice)
    snprintf(error, size, "the driver finds no device%s%s; see nvidia-smi",
             visible ? "; CUDA_VISIBLE_DEVICES is " : "", visible ? visible : "");
  else
    snprintf(error, size, "%s; see nvidia-smi", cudaGetErrorString(status));
}

bool open_device(int device, char *error, size_t size) {
  std::lock_guard guard(open_lock);
  // A queue of the hardware for each stream: behind another's message in one queue, a message would wait for ever.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status != cudaSuccess) return explain(status, driver, error, size), false;
  if (device < 0 || device >= count) {
    snprintf(error, size, "there is no device %d, there are %d", device, count);
    return false;
  }
  if (opened_device() >= 0 && opened_device() != device) {
    snprintf(error, size, "this process uses device %d already; start one process for each device", opened_device());
    return false;
  }
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (major * 10 + minor < kLeastCapability) {
    snprintf(error, size, "device %d has compute capability %d.%d; 8.0 or newer is needed (Ampere on)", device, major,
             minor);
    return false;
  }
  status = cudaSetDevice(device);
  if (status == cudaSuccess) status = cudaFree(nullptr);  // makes the context, which is what fails where it can
  if (status != cudaSuccess) {
    snprintf(error, size, "device %d does not open: %s", device, cudaGetErrorString(status));
    return false;
  }
  opened.store(device);
  return true;
}

zs_backend make_table() {
  zs_backend table = {};
  table.abi = ZS_BACKEND_ABI;
  table.struct_size = sizeof table;
  table.name = "cuda";
  table.allocate = allocate;
  table.release = release;
  table.kernels = kernels;
  table.num_kernels = ZS_OP_COUNT;
  table.attach = attach;
  table.stream_create = stream_create;
  table.stream_destroy = stream_destroy;
  table.event_record = event_record;
  table.stream_wait = stream_wait;
  table.event_release = event_release;
  table.event_wait = event_wait;
  table.stream_synchronize = stream_synchronize;
  table.synchronize = synchronize;
  table.copy = copy;
  table.zero = zero;
  table.host_allocate = host_allocate;
  table.host_release = host_release;
  table.device_info = device_info;
  table.library_info = library_info;
  table.collectives = &collectives;
  table.graphs = &graphs;
  table.moment_record = moment_record;
  table.moment_between = moment_between;
  table.moment_release = moment_release;
  return table;
}

}  // namespace

int opened_device() { return opened.load(std::memory_order_relaxed); }

cudaError_t use_device() {
  static thread_local int current = -1;
  if (current == opened_device()) return cudaSuccess;
  cudaError_t status = cudaSetDevice(opened_device());
  if (status == cudaSuccess) current = opened_device();
  return status;
}

int32_t check(cudaError_t status, char *error, const char *what) {
  if (status == cudaSuccess) return ZS_OK;
  cudaGetLastError();
  snprintf(error, ZS_ERROR_BYTES, "%s: %s", what, cudaGetErrorString(status));
  return status == cudaErrorMemoryAllocation ? ZS_NO_MEMORY : ZS_DEVICE_ERROR;
}

}  // namespace zs::cuda

extern "C" __attribute__((visibility("default"))) const zs_backend *zs_backend_open(uint32_t abi, int32_t device,
                                                                                    char *error, size_t error_bytes) {
  static const zs_backend table = zs::cuda::make_table();
  if (abi != ZS_BACKEND_ABI) {
    snprintf(error, error_bytes, "the backend has ABI %d, the core %u; reinstall zeroshard", ZS_BACKEND_ABI, abi);
    return nullptr;
  }
  error[0] = 0;
  if (device == -1) return &table;
  return zs::cuda::open_device(device, error, error_bytes) ? &table : nullptr;
}
