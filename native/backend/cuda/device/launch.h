// What every launcher uses: the call's arguments, errors, how many blocks, and the launch itself: cudaLaunchKernel,
// or a loop over the grid on the host where the tests compile these files without CUDA (test/native/cuda/shim).
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../../call.h"
#include "../context.h"
#include "../kernels.h"
#include "types.h"

namespace zs::cuda {

constexpr int kThreads = 256;

inline float real(const zs_call *call, int index) { return static_cast<float>(call->scalars[index]); }
inline int dtype_of(const zs_call *call, int index) { return call->tensors[index].dtype; }
inline int64_t count_of(const zs_call *call, int index) { return call->tensors[index].count; }
inline int64_t bytes_of(int dtype) {
  constexpr int64_t bytes[] = {4, 2, 2, 4, 1, 8, 1, 1};
  return bytes[dtype];
}

template <class Body> int32_t by_float(zs_call *call, int dtype, Body body) {
  switch (dtype) {
    case ZS_F32: return body(float{});
    case ZS_BF16: return body(bf16{});
    case ZS_F16: return body(f16{});
    default: return fail(call, ZS_UNSUPPORTED, "element type %d is no floating-point type", dtype);
  }
}
// A run-time choice as a template's: body(std::true_type or std::false_type).
template <class Body> int32_t by_flag(bool flag, Body body) { return flag ? body(std::true_type{}) : body(std::false_type{}); }

// Whether all of the given tensors may be read by 16 bytes; absent ones don't matter.
inline bool aligned(const zs_call *call, std::initializer_list<int> indices) {
  uintptr_t all = 0;
  for (int index : indices) all |= reinterpret_cast<uintptr_t>(call->tensors[index].data);
  return all % 16 == 0;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks that walk over `wanted` blocks' worth of work: no more than are resident at once (2048 threads per
// multiprocessor), so that each lives long enough to hide its start.
inline unsigned resident(const zs_call *call, int64_t wanted, int threads = kThreads) {
  const int64_t most = static_cast<int64_t>(context_of(call)->num_sms) * std::max(1, 2048 / threads);
  return static_cast<unsigned>(std::clamp<int64_t>(wanted, 1, most));
}

// Scratch for this call; on failure nullptr, and the call has its error.
template <class T> T *scratch(zs_call *call, int64_t count) {
  Context *context = context_of(call);
  void *memory = context->workspace(context, static_cast<size_t>(count) * sizeof(T));
  if (!memory) fail(call, ZS_NO_MEMORY, "no device memory for %lld bytes of workspace", static_cast<long long>(count * sizeof(T)));
  return static_cast<T *>(memory);
}

template <class... P, class... A>
int32_t launch(zs_call *call, void (*kernel)(P...), dim3 grid, int threads, size_t shared, A... arguments) {
#ifdef ZS_CUDA_SHIM
  shim::launch(call->stream, grid, static_cast<unsigned>(threads), shared, [=] { kernel(static_cast<P>(arguments)...); });
  return ZS_OK;
#else
  const auto run = [&](P... values) {
    void *pointers[] = {static_cast<void *>(&values)...};
    if (shared > 48 * 1024) {
      const cudaError_t set = cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
      if (set != cudaSuccess) return set;
    }
    if (Context *context = context_of(call); context->launch) {
      const Launch asked{reinterpret_cast<const void *>(kernel), {grid.x, grid.y, grid.z}, static_cast<unsigned>(threads),
                         pointers, shared};
      return static_cast<cudaError_t>(context->launch(context, asked));
    }
    return cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid, dim3(static_cast<unsigned>(threads)), pointers, shared,
                            static_cast<cudaStream_t>(call->stream));
  };
  const cudaError_t error = run(static_cast<P>(arguments)...);
  if (error == cudaSuccess) return ZS_OK;
  cudaGetLastError();  // the next call shall not meet it again
  return fail(call, ZS_DEVICE_ERROR, "launch: %s", cudaGetErrorString(error));
#endif
}

// Tells the host that `value` is outside [0, end); any one of several will do.
__device__ inline void tell(Report *report, int op, int64_t value, int64_t end) {
  report->value = value;
  report->end = end;
  __threadfence_system();
  report->op = op + 1;
}

// body(first, n) for packs of N elements, n < N only for the last.
template <int N, class Body> __global__ void __launch_bounds__(kThreads) each_pack(int64_t count, Body body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * N;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N; i < count; i += step) {
    body(i, count - i < N ? static_cast<int>(count - i) : N);
  }
}
template <int N, class Body> int32_t run_packs(zs_call *call, int64_t count, Body body) {
  if (count == 0) return ZS_OK;
  return launch(call, each_pack<N, Body>, resident(call, ceil_div(count, kThreads * N)), kThreads, 0, count, body);
}

}  // namespace zs::cuda
