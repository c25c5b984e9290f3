// The bodies of rows.h as templates of the vector's width.
#pragma once
#include <cmath>

#include "../../ops/elementwise.h"
#include "norm_kernel.h"
#include "gradient_kernel.h"
#include "random_kernel.h"
#include "rows.h"
#include "vmath.h"

namespace zs::cpu {
namespace {

template <int W> float maximum(const float *x, int64_t n) {
  vfloat<W> top = splat<W>(-INFINITY);
  int64_t i = 0;
  for (; i + W <= n; i += W) top = vmax<W>(load<W>(x + i), top);
  float result = max<W>(top);
  for (; i < n; i++) result = x[i] > result ? x[i] : result;
  return result;
}

template <int W> float exp_sum(float *x, int64_t n, float scale, float shift) {
  vfloat<W> total{};
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    const vfloat<W> e = vexp<W>(load<W>(x + i) * scale - shift);
    store<W>(x + i, e);
    total += e;
  }
  float rest = 0;
  if (i < n) {
    const vfloat<W> e = vexp<W>(load_some<W>(x + i, n - i) * scale - shift);
    store_some<W>(x + i, e, n - i);
    for (int64_t j = 0; i + j < n; j++) rest += x[i + j];
  }
  return sum<W>(total) + rest;
}

template <int W> float dot(const float *x, const float *y, int64_t n) {
  vfloat<W> total{};
  int64_t i = 0;
  for (; i + W <= n; i += W) total += load<W>(x + i) * load<W>(y + i);
  float result = sum<W>(total);
  for (; i < n; i++) result += x[i] * y[i];
  return result;
}

template <int W, class T, class F> ZS_INLINE bool map(void *y, const void *x, int64_t n, F f) {
  vectors<W>(n, [&](int64_t i, int64_t m) { put<W>((T *)y + i, f(take<W>((const T *)x + i, m)), m); });
  return true;
}
template <int W, class T> bool value(int kind, void *y, const void *x, int64_t n) {
  using F = vfloat<W>;
  switch (kind) {
    case UNARY_GELU_TANH: return map<W, T>(y, x, n, [](F v) { return vgelu_tanh<W>(v); });
    case UNARY_GELU_ERF: return map<W, T>(y, x, n, [](F v) { return vgelu_erf<W>(v); });
    case UNARY_SILU: return map<W, T>(y, x, n, [](F v) { return v * vsigmoid<W>(v); });
    case UNARY_TANH: return map<W, T>(y, x, n, [](F v) { return vtanh<W>(v); });
    case UNARY_SIGMOID: return map<W, T>(y, x, n, [](F v) { return vsigmoid<W>(v); });
    case UNARY_EXP: return map<W, T>(y, x, n, [](F v) { return vexp<W>(v); });
    default: return false;
  }
}

template <int W> ZS_INLINE vfloat<W> silu_slope(vfloat<W> x) {
  const vfloat<W> s = vsigmoid<W>(x);
  return s * (1.0f + x * (1.0f - s));
}
template <int W, class T, class F> ZS_INLINE bool map_slope(void *dx, const void *dy, const void *x, int64_t n, F f) {
  vectors<W>(n, [&](int64_t i, int64_t m) {
    put<W>((T *)dx + i, take<W>((const T *)dy + i, m) * f(take<W>((const T *)x + i, m)), m);
  });
  return true;
}
template <int W, class T> bool slope(int kind, void *dx, const void *dy, const void *x, int64_t n) {
  using F = vfloat<W>;
  switch (kind) {
    case UNARY_GELU_TANH: return map_slope<W, T>(dx, dy, x, n, [](F v) { return vgelu_tanh_grad<W>(v); });
    case UNARY_GELU_ERF: return map_slope<W, T>(dx, dy, x, n, [](F v) { return vgelu_erf_grad<W>(v); });
    case UNARY_SILU: return map_slope<W, T>(dx, dy, x, n, [](F v) { return silu_slope<W>(v); });
    default: return false;
  }
}

template <int W, class T> void swiglu(void *y, const void *gate, const void *up, int64_t n) {
  vectors<W>(n, [&](int64_t i, int64_t m) {
    const vfloat<W> g = take<W>((const T *)gate + i, m);
    put<W>((T *)y + i, g * vsigmoid<W>(g) * take<W>((const T *)up + i, m), m);
  });
}
template <int W, class T>
void swiglu_slope(void *dgate, void *dup, const void *dy, const void *gate, const void *up, int64_t n) {
  vectors<W>(n, [&](int64_t i, int64_t m) {
    const vfloat<W> g = take<W>((const T *)gate + i, m), u = take<W>((const T *)up + i, m), d = take<W>((const T *)dy + i, m);
    put<W>((T *)dgate + i, d * u * silu_slope<W>(g), m);
    put<W>((T *)dup + i, d * g * vsigmoid<W>(g), m);
  });
}

template <int W, class T> constexpr Activations activations() {
  return {value<W, T>, slope<W, T>, swiglu<W, T>, swiglu_slope<W, T>};
}
template <int W, class T> constexpr NormKernels norms() { return {norm_forward<W, T>, norm_backward<W, T>}; }
template <int W> constexpr RowKernels row_table() {
  return {maximum<W>,
          exp_sum<W>,
          dot<W>,
          draw<W, false>,
          draw<W, true>,
          kept<W>,
          {activations<W, float>(), activations<W, bf16>(), activations<W, f16>()},
          {norms<W, float>(), norms<W, bf16>(), norms<W, f16>()},
          {gradient_kernels<float>(), gradient_kernels<bf16>(), gradient_kernels<f16>()}};
}

}  // namespace
}  // namespace zs::cpu
