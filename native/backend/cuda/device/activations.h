// Functions of one value and their slopes, in f32 (native/ops/elementwise.h names them).
#pragma once
#include "../../../ops/elementwise.h"
#include "types.h"

namespace zs::cuda {

__device__ inline float sigmoid(float x) { return 1 / (1 + expf(-x)); }
__device__ inline float silu(float x) { return x / (1 + expf(-x)); }
__device__ inline float silu_slope(float x) {
  const float s = sigmoid(x);
  return s * (1 + x * (1 - s));
}

// GELU by the tanh formula: x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
__device__ inline float gelu_tanh(float x) {
  return x / (1 + expf(-1.5957691216057308f * x * (1 + 0.044715f * x * x)));
}
__device__ inline float gelu_tanh_slope(float x) {
  // Below -60, e * s would be infinity times 0.
  const float u2 = fmaxf(1.5957691216057308f * x * (1 + 0.044715f * x * x), -60.0f);
  const float e = expf(-u2), s = 1 / (1 + e);
  return s + x * s * (e * s) * (1.5957691216057308f * (1 + 0.134145f * x * x));
}
// Exact GELU: x Phi(x).
__device__ inline float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678118654752f * x); }
__device__ inline float gelu_erf_slope(float x) { return normal_cdf(x) + x * 0.3989422804014327f * expf(-0.5f * x * x); }

template <int kind> __device__ inline float unary_value(float x) {
  if constexpr (kind == UNARY_GELU_TANH) return gelu_tanh(x);
  else if constexpr (kind == UNARY_GELU_ERF) return x * normal_cdf(x);
  else if constexpr (kind == UNARY_SILU) return silu(x);
  else if constexpr (kind == UNARY_RELU) return x > 0 || x != x ? x : 0;
  else if constexpr (kind == UNARY_TANH) return tanhf(x);
  else if constexpr (kind == UNARY_SIGMOID) return sigmoid(x);
  else if constexpr (kind == UNARY_EXP) return expf(x);
  else if constexpr (kind == UNARY_LOG) return logf(x);
  else if constexpr (kind == UNARY_SQRT) return sqrtf(x);
  else if constexpr (kind == UNARY_SQUARE) return x * x;
  else if constexpr (kind == UNARY_ABS) return fabsf(x);
  else return 1 / x;
}

// y: the function's value where the slope is told by it; x elsewhere.
template <int kind> __device__ inline float unary_slope(float x, float y) {
  if constexpr (kind == UNARY_GELU_TANH) return gelu_tanh_slope(x);
  else if constexpr (kind == UNARY_GELU_ERF) return gelu_erf_slope(x);
  else if constexpr (kind == UNARY_SILU) return silu_slope(x);
  else if constexpr (kind == UNARY_RELU) return y > 0 ? 1 : 0;
  else if constexpr (kind == UNARY_TANH) return 1 - y * y;
  else if constexpr (kind == UNARY_SIGMOID) return y * (1 - y);
  else if constexpr (kind == UNARY_EXP) return y;
  else if constexpr (kind == UNARY_LOG) return 1 / x;
  else if constexpr (kind == UNARY_SQRT) return 0.5f / y;
  else if constexpr (kind == UNARY_SQUARE) return 2 * x;
  else if constexpr (kind == UNARY_ABS) return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f;
  else return -y * y;
}

// body.run<kind>(): one uniform branch for a whole pack.
template <class Body> __device__ inline void by_kind(int kind, Body &body) {
  switch (kind) {
    case UNARY_GELU_TANH: return body.template run<UNARY_GELU_TANH>();
    case UNARY_GELU_ERF: return body.template run<UNARY_GELU_ERF>();
    case UNARY_SILU: return body.template run<UNARY_SILU>();
    case UNARY_RELU: return body.template run<UNARY_RELU>();
    case UNARY_TANH: return body.template run<UNARY_TANH>();
    case UNARY_SIGMOID: return body.template run<UNARY_SIGMOID>();
    case UNARY_EXP: return body.template run<UNARY_EXP>();
    case UNARY_LOG: return body.template run<UNARY_LOG>();
    case UNARY_SQRT: return body.template run<UNARY_SQRT>();
    case UNARY_SQUARE: return body.template run<UNARY_SQUARE>();
    case UNARY_ABS: return body.template run<UNARY_ABS>();
    default: return body.template run<UNARY_RECIPROCAL>();
  }
}

}  // namespace zs::cuda
