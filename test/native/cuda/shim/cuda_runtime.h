// Stands in for the CUDA headers so that g++ compiles the kernels' own sources: a thread of a block is a fiber of
// fibers.h; barriers, shuffles, votes and atomics mean what they mean on the device; rounding intrinsics are plain
// operations (the build forbids fused ones). Not here: memory order, divergence inside a warp's collective.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#define threadIdx (::zs::shim::thread_index())
#define blockIdx (::zs::shim::block_index())
#define gridDim (::zs::shim::grid_size())
#define blockDim (::zs::shim::block_size())

inline void __syncthreads() { zs::shim::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  zs::shim::check_mask(mask);
  zs::shim::exchange(nullptr, 0);
}
inline void __threadfence() {}
inline void __threadfence_system() {}

namespace zs::shim {
template <class T> T from_lane(T value, unsigned lane) {
  T result;
  memcpy(&result, exchange(&value, sizeof value) + lane * kSlot, sizeof result);
  return result;
}
}  // namespace zs::shim

template <class T> T __shfl_sync(unsigned mask, T value, int lane) {
  zs::shim::check_mask(mask);
  return zs::shim::from_lane(value, static_cast<unsigned>(lane) % 32);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int step) {
  zs::shim::check_mask(mask);
  return zs::shim::from_lane(value, (zs::shim::lane() ^ static_cast<unsigned>(step)) % 32);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, int step) {
  zs::shim::check_mask(mask);
  const unsigned lane = zs::shim::lane(), by = static_cast<unsigned>(step);
  return zs::shim::from_lane(value, lane >= by ? lane - by : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  zs::shim::check_mask(mask);
  const int vote = predicate != 0;
  const char *slots = zs::shim::exchange(&vote, sizeof vote);
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; lane++) {
    int one;
    memcpy(&one, slots + lane * zs::shim::kSlot, sizeof one);
    result |= static_cast<unsigned>(one) << lane;
  }
  return result;
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }

// One OS thread runs all fibers, and a fiber gives way only at the calls above.
template <class T> T atomicAdd(T *at, T value) {
  const T old = *at;
  *at = old + value;
  return old;
}
template <class T> T atomicMax(T *at, T value) {
  const T old = *at;
  if (value > old) *at = value;
  return old;
}
template <class T> T atomicAnd(T *at, T value) {
  const T old = *at;
  *at = old & value;
  return old;
}
