// absmax, sum_squares, norm_finish: a norm whose bits don't depend on order or cut (native/ops/optimizer.h). Squares
// are products of integers (a float is 24 bits and an exponent), exact and free of the f64 units that small GPUs lack;
// blocks add to the result with integer atomics, whose order doesn't matter.
#include <cmath>

#include "../../ops/optimizer.h"
#include "device/launch.h"
#include "device/reduce.h"
#include "device/vector.h"

namespace zs::cuda {
namespace {

template <class T, bool V> __global__ void __launch_bounds__(kThreads) absmax_kernel(float *y, const T *x, int64_t count) {
  constexpr int N = kPack<T>;
  __shared__ uint32_t buffer[32];
  uint32_t top = 0;  // absolute values order like integers, NaN above infinity
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * N;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N; i < count; i += step) {
    const Floats<N> v = load<V, N>(x + i, count - i < N ? static_cast<int>(count - i) : N);
#pragma unroll
    for (int j = 0; j < N; j++) {
      const uint32_t bits = __float_as_uint(v.at[j]) & 0x7fffffffu;
      top = bits > top ? bits : top;
    }
  }
  top = block_reduce(top, Max{}, buffer);
  if (threadIdx.x == 0) {
    atomicAnd(reinterpret_cast<uint32_t *>(y), 0x7fffffffu);
    atomicMax(reinterpret_cast<uint32_t *>(y), top);
  }
}

__device__ inline int exponent_of(float largest) {  // largest in [2^e, 2^(e+1))
  const uint32_t bits = __float_as_uint(largest) & 0x7fffffffu;
  return bits >= 0x800000u ? static_cast<int>(bits >> 23) - 127 : 31 - __clz(static_cast<int>(bits)) - 149;
}
__device__ inline bool has_norm(float largest) {  // neither 0 nor infinite nor NaN
  return largest != 0 && (__float_as_uint(largest) & 0x7f800000u) != 0x7f800000u;
}

// Adds (x 2^(10-e))^2, at most 2^22, in units of 1 and, the rest rounded, of 2^-22.
__device__ inline void add_square(float x, int e, int64_t &high, int64_t &low) {
  const uint32_t bits = __float_as_uint(x) & 0x7fffffffu;
  const int exponent = bits >= 0x800000u ? static_cast<int>(bits >> 23) : 1;
  const uint64_t m = bits >= 0x800000u ? (bits & 0x7fffffu) | 0x800000u : bits, square = m * m;
  const int shift = 2 * (140 + e - exponent);  // the scaled square is square * 2^-shift
  if (shift <= 0) {
    high += static_cast<int64_t>(square << -shift);
  } else if (shift < 72) {  // beyond, less than half a unit
    const uint64_t whole = shift < 48 ? square >> shift : 0, part = shift < 48 ? square - (whole << shift) : square;
    high += static_cast<int64_t>(whole);
    low += static_cast<int64_t>(shift <= 22 ? part << (22 - shift) : (part + (uint64_t{1} << (shift - 23))) >> (shift - 22));
  }
}

template <class T, bool V>
__global__ void __launch_bounds__(kThreads) sum_squares_kernel(unsigned long long *y, const T *x, const float *absmax, int64_t count) {
  constexpr int N = kPack<T>;
  __shared__ int64_t buffer[32];
  const float largest = absmax[0];
  if (!has_norm(largest)) return;
  const int e = exponent_of(largest);
  int64_t high = 0, low = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * N;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N; i < count; i += step) {
    const Floats<N> v = load<V, N>(x + i, count - i < N ? static_cast<int>(count - i) : N);
#pragma unroll
    for (int j = 0; j < N; j++) add_square(v.at[j], e, high, low);
  }
  high = block_reduce(high, Sum{}, buffer);
  low = block_reduce(low, Sum{}, buffer);
  if (threadIdx.x == 0) {
    atomicAdd(y, static_cast<unsigned long long>(high));
    atomicAdd(y + 1, static_cast<unsigned long long>(low));
  }
}

__global__ void norm_finish_kernel(float *y, const int64_t *sum, const float *absmax) {
  const float largest = absmax[0];
  if (!has_norm(largest)) {
    y[0] = largest;
    return;
  }
  const double total = static_cast<double>(sum[0]) + static_cast<double>(sum[1]) / 4194304.0;
  y[0] = static_cast<float>(sqrt(total) * scalbn(1.0, exponent_of(largest) - 10));
}

}  // namespace

int32_t absmax(zs_call *call) {
  return by_float(call, dtype_of(call, ABSMAX_X), [&]<class T>(T) {
    return by_flag(aligned(call, {ABSMAX_X}), [&](auto v) {
      const int64_t count = count_of(call, ABSMAX_X);
      return launch(call, absmax_kernel<T, v.value>, resident(call, ceil_div(count, kThreads * kPack<T>)), kThreads, 0,
                    data<float>(call, ABSMAX_Y), data<T>(call, ABSMAX_X), count);
    });
  });
}

int32_t sum_squares(zs_call *call) {
  const int64_t count = count_of(call, SUM_SQUARES_X);
  if (count == 0) return ZS_OK;
  return by_float(call, dtype_of(call, SUM_SQUARES_X), [&]<class T>(T) {
    return by_flag(aligned(call, {SUM_SQUARES_X}), [&](auto v) {
      return launch(call, sum_squares_kernel<T, v.value>, resident(call, ceil_div(count, kThreads * kPack<T>)), kThreads, 0,
                    data<unsigned long long>(call, SUM_SQUARES_Y), data<T>(call, SUM_SQUARES_X), data<float>(call, SUM_SQUARES_ABSMAX),
                    count);
    });
  });
}

int32_t norm_finish(zs_call *call) {
  return launch(call, norm_finish_kernel, 1, 1, 0, data<float>(call, NORM_FINISH_Y), data<int64_t>(call, NORM_FINISH_SUM),
                data<float>(call, NORM_FINISH_ABSMAX));
}

}  // namespace zs::cuda
