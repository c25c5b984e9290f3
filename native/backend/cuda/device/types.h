// Element types on the device: bf16 and f16 as storage, conversions from and to f32 (nearest even; NaN stays NaN).
// 16-bit values are converted in pairs, as they lie in a 32-bit register.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#ifdef ZS_CUDA_SHIM
#include "../../cpu/float16.h"
#endif

namespace zs::cuda {

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

template <class T> constexpr bool is_half = false;
template <> constexpr inline bool is_half<bf16> = true;
template <> constexpr inline bool is_half<f16> = true;

#ifdef ZS_CUDA_SHIM
__device__ inline float half_to_float(uint16_t bits) { return cpu::to_float(cpu::f16{bits}); }
template <class T> __device__ inline uint32_t pack_pair(float low, float high);
template <> inline uint32_t pack_pair<bf16>(float low, float high) {
  return cpu::to_bf16(low).bits | static_cast<uint32_t>(cpu::to_bf16(high).bits) << 16;
}
template <> inline uint32_t pack_pair<f16>(float low, float high) {
  return cpu::to_f16(low).bits | static_cast<uint32_t>(cpu::to_f16(high).bits) << 16;
}
#else
__device__ inline float half_to_float(uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
template <class T> __device__ inline uint32_t pack_pair(float low, float high);
template <> __device__ inline uint32_t pack_pair<bf16>(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
template <> __device__ inline uint32_t pack_pair<f16>(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#endif

template <class T> __device__ inline float low_of(uint32_t pair);
template <> __device__ inline float low_of<bf16>(uint32_t pair) { return __uint_as_float(pair << 16); }
template <> __device__ inline float low_of<f16>(uint32_t pair) { return half_to_float(static_cast<uint16_t>(pair)); }
template <class T> __device__ inline float high_of(uint32_t pair);
template <> __device__ inline float high_of<bf16>(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
template <> __device__ inline float high_of<f16>(uint32_t pair) { return half_to_float(static_cast<uint16_t>(pair >> 16)); }

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ inline float to_float(f16 x) { return half_to_float(x.bits); }

template <class T> __device__ inline T from_float(float x) { return {static_cast<uint16_t>(pack_pair<T>(x, 0))}; }
template <> __device__ inline float from_float<float>(float x) { return x; }

}  // namespace zs::cuda
