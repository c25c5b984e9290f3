// Sums and maxima over a warp and over a block, in an order that depends on the number of threads alone.
#pragma once
#include "types.h"

namespace zs::cuda {

struct Sum {
  template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct Max {  // as std::fmax: a NaN loses
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
  template <class T> __device__ T operator()(T a, T b) const { return a > b ? a : b; }
};
struct Min {
  __device__ float operator()(float a, float b) const { return fminf(a, b); }
};

// Every lane gets the result. `width` lanes that lie together, a power of two.
template <class T, class F> __device__ inline T warp_reduce(T x, F f, int width = 32) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    if (step < width) x = f(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

// Every thread of the block (whole warps) gets the result. May follow itself at once: the buffer of 32 values is
// guarded on both sides.
template <class T, class F> __device__ inline T block_reduce(T x, F f, T *buffer) {
  x = warp_reduce(x, f);
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (warps == 1) return x;
  __syncthreads();
  if (threadIdx.x % 32 == 0) buffer[warp] = x;
  __syncthreads();
  x = buffer[0];
  for (int w = 1; w < warps; w++) x = f(x, buffer[w]);
  return x;
}

}  // namespace zs::cuda
