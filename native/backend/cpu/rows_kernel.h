// The bodies of rows.h as templates of the vector's width.
#pragma once
#include <cmath>

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

template <int W> constexpr RowKernels row_table() { return {maximum<W>, exp_sum<W>, dot<W>}; }

}  // namespace
}  // namespace zs::cpu
