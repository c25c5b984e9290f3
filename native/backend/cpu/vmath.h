// Vectors of W floats (4 on any CPU, 8 with AVX2, 16 with AVX-512) and the functions kernels need on them.
// Written with the compiler's vector types, so one text serves every width. Everything has internal linkage:
// a file built with wide instructions never lends its copy to one that must run without them.
// Errors against float64: exp 8e-8 relative, tanh 3e-7; GELU, its slope and erfc 5e-7 of the larger of 1 and the value.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "float16.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace zs::cpu {
namespace {

#define ZS_INLINE __attribute__((always_inline)) inline

template <int W> struct vector_of;
#define ZS_VECTOR(W)                                                  \
  template <> struct vector_of<W> {                                   \
    typedef float F __attribute__((vector_size(W * 4)));              \
    typedef int32_t I __attribute__((vector_size(W * 4)));            \
    typedef uint32_t U __attribute__((vector_size(W * 4)));           \
    typedef uint16_t H __attribute__((vector_size(W * 2)));           \
  }
ZS_VECTOR(4);
ZS_VECTOR(8);
ZS_VECTOR(16);
#undef ZS_VECTOR
template <int W> using vfloat = typename vector_of<W>::F;

template <int W> ZS_INLINE vfloat<W> splat(float x) { return x - vfloat<W>{}; }

// Loads and stores take any alignment and convert: the value in a register is always f32.
template <int W> ZS_INLINE vfloat<W> load(const float *p) {
  vfloat<W> v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <int W> ZS_INLINE vfloat<W> load(const bf16 *p) {
  typename vector_of<W>::H h;
  memcpy(&h, p, sizeof h);
  return (vfloat<W>)(__builtin_convertvector(h, typename vector_of<W>::U) << 16);
}
template <int W> ZS_INLINE vfloat<W> load(const f16 *p) {
#if defined(__AVX512F__)
  if constexpr (W == 16) return (vfloat<W>)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i *)p));
#endif
#if defined(__F16C__)
  if constexpr (W == 8) return (vfloat<W>)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#endif
  vfloat<W> v;
  for (int i = 0; i < W; i++) v[i] = to_float(p[i]);
  return v;
}

template <int W> ZS_INLINE void store(float *p, vfloat<W> v) { memcpy(p, &v, sizeof v); }
template <int W> ZS_INLINE void store(bf16 *p, vfloat<W> v) {
  using U = typename vector_of<W>::U;
  U u = (U)v;
  U rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  u = (U)(v == v) != 0u ? rounded : (u >> 16 | 0x40u);
  auto h = __builtin_convertvector(u, typename vector_of<W>::H);
  memcpy(p, &h, sizeof h);
}
template <int W> ZS_INLINE void store(f16 *p, vfloat<W> v) {
#if defined(__AVX512F__)
  if constexpr (W == 16) return _mm256_storeu_si256((__m256i *)p, _mm512_maskz_cvtps_ph(0xffff, (__m512)v, 8));
#endif
#if defined(__F16C__)
  if constexpr (W == 8) return _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, 8));
#endif
  for (int i = 0; i < W; i++) p[i] = to_f16(v[i]);
}

// The first n of W elements; the rest read as 0 and are not written.
template <int W, class T> ZS_INLINE vfloat<W> load_some(const T *p, int64_t n) {
  T part[W] = {};
  for (int64_t i = 0; i < n && i < W; i++) part[i] = p[i];
  return load<W>(part);
}
template <int W, class T> ZS_INLINE void store_some(T *p, vfloat<W> v, int64_t n) {
  T part[W];
  store<W>(part, v);
  for (int64_t i = 0; i < n && i < W; i++) p[i] = part[i];
}

// Calls body(offset, how many) for each vector of n values; the last may be partial.
template <int W, class Body> ZS_INLINE void vectors(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + W <= n; i += W) body(i, W);
  if (i < n) body(i, n - i);
}
template <int W, class T> ZS_INLINE vfloat<W> take(const T *p, int64_t n) { return n == W ? load<W>(p) : load_some<W>(p, n); }
template <int W, class T> ZS_INLINE void put(T *p, vfloat<W> v, int64_t n) {
  if (n == W) store<W>(p, v);
  else store_some<W>(p, v, n);
}

// a0 b0 a1 b1 …: the lower halves of two vectors, and the upper ones.
template <int W> struct Interleave;
template <> struct Interleave<4> {
  static ZS_INLINE vfloat<4> low(vfloat<4> a, vfloat<4> b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
  static ZS_INLINE vfloat<4> high(vfloat<4> a, vfloat<4> b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
};
template <> struct Interleave<8> {
  static ZS_INLINE vfloat<8> low(vfloat<8> a, vfloat<8> b) {
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  }
  static ZS_INLINE vfloat<8> high(vfloat<8> a, vfloat<8> b) {
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  }
};
template <> struct Interleave<16> {
  static ZS_INLINE vfloat<16> low(vfloat<16> a, vfloat<16> b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  }
  static ZS_INLINE vfloat<16> high(vfloat<16> a, vfloat<16> b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
};

// Sums and maxima over the lanes always pair the same lanes.
template <int W> ZS_INLINE float sum(vfloat<W> v) {
  float part[W];
  memcpy(part, &v, sizeof v);
  for (int step = W / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) part[i] += part[i + step];
  return part[0];
}
template <int W> ZS_INLINE float max(vfloat<W> v) {
  float part[W];
  memcpy(part, &v, sizeof v);
  for (int step = W / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) part[i] = part[i] > part[i + step] ? part[i] : part[i + step];
  return part[0];
}
// a * b + c in one rounding where the machine has it. Written out: the build forbids the compiler to contract
// (-ffp-contract=off), so that a loop's vectors and its rest round alike.
template <int W> ZS_INLINE vfloat<W> vfma(vfloat<W> a, vfloat<W> b, vfloat<W> c) {
#if defined(__AVX512F__)
  if constexpr (W == 16) return (vfloat<W>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#endif
#if defined(__FMA__)
  if constexpr (W == 8) return (vfloat<W>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#endif
  return a * b + c;
}
template <int W> ZS_INLINE vfloat<W> vsqrt(vfloat<W> x) {
#if defined(__AVX512F__)
  if constexpr (W == 16) return (vfloat<W>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#endif
#if defined(__AVX2__)
  if constexpr (W == 8) return (vfloat<W>)_mm256_sqrt_ps((__m256)x);
#endif
  for (int i = 0; i < W; i++) x[i] = std::sqrt(x[i]);
  return x;
}
template <int W> ZS_INLINE vfloat<W> vmax(vfloat<W> a, vfloat<W> b) { return a > b ? a : b; }
template <int W> ZS_INLINE vfloat<W> vmin(vfloat<W> a, vfloat<W> b) { return a < b ? a : b; }
template <int W> ZS_INLINE vfloat<W> vabs(vfloat<W> x) {
  return (vfloat<W>)((typename vector_of<W>::U)x & 0x7fffffffu);
}

// e^x with infinity, 0 and subnormals at the ends; NaN stays NaN. 2^n is applied in two halves for the ends' sake.
template <int W> ZS_INLINE vfloat<W> vexp(vfloat<W> x) {
  using F = vfloat<W>;
  using I = typename vector_of<W>::I;
  x = x > 89.0f ? splat<W>(89.0f) : x;
  x = x < -105.0f ? splat<W>(-105.0f) : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  F shifted = x * 1.44269504088896341f + magic;
  F n = shifted - magic;
  I k = (I)shifted - 0x4b400000;
  F r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  F p = splat<W>(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  I half = k >> 1;
  return p * (F)((half + 127) << 23) * (F)((k - half + 127) << 23);
}

template <int W> ZS_INLINE vfloat<W> vsigmoid(vfloat<W> x) { return 1.0f / (1.0f + vexp<W>(-x)); }

template <int W> ZS_INLINE vfloat<W> vtanh(vfloat<W> x) {
  using F = vfloat<W>;
  F s = x * x;
  F p = splat<W>(-5.70498872745e-3f);
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  F small = x + x * s * p;
  F large = 1.0f - 2.0f / (vexp<W>(2.0f * x) + 1.0f);
  return vabs<W>(x) < 0.625f ? small : large;
}

// erfc(z) for z >= 0: Chebyshev fit of Press et al., Numerical Recipes, 1.2e-7 relative.
template <int W> ZS_INLINE vfloat<W> verfc_positive(vfloat<W> z) {
  using F = vfloat<W>;
  F t = 1.0f / (1.0f + 0.5f * z);
  F p = splat<W>(0.17087277f);
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  return t * vexp<W>(p - z * z);
}

// GELU by the tanh formula: 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
template <int W> ZS_INLINE vfloat<W> vgelu_tanh(vfloat<W> x) {
  vfloat<W> u2 = 1.5957691216057308f * x * (1.0f + 0.044715f * x * x);
  return x / (1.0f + vexp<W>(-u2));
}
template <int W> ZS_INLINE vfloat<W> vgelu_tanh_grad(vfloat<W> x) {
  using F = vfloat<W>;
  F u2 = 1.5957691216057308f * x * (1.0f + 0.044715f * x * x);
  u2 = u2 < -60.0f ? splat<W>(-60.0f) : u2;  // beyond, e * s would be infinity times 0
  F e = vexp<W>(-u2), s = 1.0f / (1.0f + e);
  return s + x * s * (e * s) * (1.5957691216057308f * (1.0f + 0.134145f * x * x));
}

// Exact GELU: x Phi(x), Phi(x) = erfc(-x / sqrt 2) / 2.
template <int W> ZS_INLINE vfloat<W> vnormal_cdf(vfloat<W> x) {
  vfloat<W> tail = 0.5f * verfc_positive<W>(vabs<W>(x) * 0.70710678118654752f);
  return x > 0.0f ? 1.0f - tail : tail;
}
template <int W> ZS_INLINE vfloat<W> vgelu_erf(vfloat<W> x) { return x * vnormal_cdf<W>(x); }
template <int W> ZS_INLINE vfloat<W> vgelu_erf_grad(vfloat<W> x) {
  return vnormal_cdf<W>(x) + x * 0.3989422804014327f * vexp<W>(-0.5f * x * x);
}

}  // namespace
}  // namespace zs::cpu
