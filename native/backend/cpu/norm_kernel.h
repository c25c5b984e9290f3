// layer_norm and rms_norm over rows as vectors. Sums are taken in f32, W lanes by four, in an order that depends on
// the number of columns alone.
#pragma once
#include <cmath>

#include "rows.h"
#include "vmath.h"

namespace zs::cpu {
namespace {

// The sum of f(x) over a row; f gets a vector, and the number of its lanes that count.
template <int W, class F> ZS_INLINE float row_total(const float *x, int64_t n, F f) {
  vfloat<W> lanes[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int j = 0; j < 4; j++) lanes[j] += f(load<W>(x + i + j * W));
  for (; i + W <= n; i += W) lanes[0] += f(load<W>(x + i));
  float rest = 0;
  if (i < n) {
    const vfloat<W> last = f(load_some<W>(x + i, n - i));
    for (int64_t j = 0; i + j < n; j++) rest += last[j];
  }
  return sum<W>((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + rest;
}

template <int W, class T> void norm_forward(const NormForward &f, int64_t begin, int64_t end, float *h) {
  const int64_t n = f.cols;
  for (int64_t r = begin; r < end; r++) {
    const T *x = static_cast<const T *>(f.x) + r * n;
    if (f.residual) {
      const T *residual = static_cast<const T *>(f.residual) + r * n;
      T *total = static_cast<T *>(f.sum) + r * n;
      // What is normalised is the sum as stored, rounded to T.
      vectors<W>(n, [&](int64_t i, int64_t m) { put<W>(total + i, take<W>(x + i, m) + take<W>(residual + i, m), m); });
      x = total;
    }
    vectors<W>(n, [&](int64_t i, int64_t m) { put<W>(h + i, take<W>(x + i, m), m); });
    const float count = static_cast<float>(n);
    const float mean = f.mean ? row_total<W>(h, n, [](vfloat<W> v) { return v; }) / count : 0;
    const float squares = row_total<W>(h, n, [mean](vfloat<W> v) { return (v - mean) * (v - mean); });
    const float rstd = 1 / std::sqrt(squares / count + f.eps);
    if (f.mean) f.mean[r] = mean;
    f.rstd[r] = rstd;
    T *y = static_cast<T *>(f.y) + r * n;
    vectors<W>(n, [&](int64_t i, int64_t m) {
      vfloat<W> v = (take<W>(h + i, m) - mean) * rstd;
      if (f.weight) v *= take<W>(f.weight + i, m);
      if (f.bias) v += take<W>(f.bias + i, m);
      put<W>(y + i, v, m);
    });
  }
}

template <int W, class T>
void norm_backward(const NormBackward &f, int64_t begin, int64_t end, float *dweight, float *dbias, float *g) {
  const int64_t n = f.cols;
  float *h = g + n;
  for (int64_t r = begin; r < end; r++) {
    const float mean = f.mean ? f.mean[r] : 0, rstd = f.rstd[r];
    const T *x = static_cast<const T *>(f.x) + r * n, *dy = static_cast<const T *>(f.dy) + r * n;
    vfloat<W> dot{}, total{};
    // Lanes behind the end of a row have dy 0 and add nothing.
    vectors<W>(n, [&](int64_t i, int64_t m) {
      vfloat<W> slope = take<W>(dy + i, m);
      const vfloat<W> normal = (take<W>(x + i, m) - mean) * rstd;
      if (dweight) put<W>(dweight + i, vfma<W>(slope, normal, take<W>(dweight + i, m)), m);
      if (dbias) put<W>(dbias + i, take<W>(dbias + i, m) + slope, m);
      if (f.weight) slope *= take<W>(f.weight + i, m);
      dot = vfma<W>(slope, normal, dot);
      total += slope;
      put<W>(g + i, slope, m);
      put<W>(h + i, normal, m);
    });
    const float count = static_cast<float>(n), mean_dot = sum<W>(dot) / count, mean_total = f.mean ? sum<W>(total) / count : 0;
    const T *dresidual = f.dresidual ? static_cast<const T *>(f.dresidual) + r * n : nullptr;
    T *dx = static_cast<T *>(f.dx) + r * n;
    vectors<W>(n, [&](int64_t i, int64_t m) {
      vfloat<W> d = (take<W>(g + i, m) - mean_total - take<W>(h + i, m) * mean_dot) * rstd;
      if (dresidual) d += take<W>(dresidual + i, m);
      put<W>(dx + i, d, m);
    });
  }
}

}  // namespace
}  // namespace zs::cpu
