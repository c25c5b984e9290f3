// AdamW's update as vectors, and the two passes of the global norm. Only operations that IEEE rounds in one way, and no
// fused ones: the same bits at every width and for every cut.
#pragma once
#include "rows.h"
#include "vmath.h"

namespace zs::cpu {
namespace {

template <int W, class G, class O>
void adamw_update(float *p, float *m, float *v, void *grad, void *out, int64_t n, const AdamwStep &step) {
  using F = vfloat<W>;
  const AdamwStep h = step;
  G *gradient = static_cast<G *>(grad);
  O *copy = static_cast<O *>(out);
  const F zero{};
  vectors<W>(n, [&](int64_t i, int64_t count) {
    const F parameter = take<W>(p + i, count);
    F g = take<W>(gradient + i, count) * h.scale;
    if (h.l2 != 0) g += h.l2 * parameter;
    const F old = take<W>(m + i, count), mean = old + h.rate1 * (g - old);
    const F square = h.beta2 * take<W>(v + i, count) + h.rate2 * g * g;
    const F next = parameter * h.keep - h.step * mean / (vsqrt<W>(square) * h.root2 + h.eps);
    put<W>(m + i, mean, count);
    put<W>(v + i, square, count);
    put<W>(p + i, next, count);
    if (copy) put<W>(copy + i, next, count);
    if (h.zero) put<W>(gradient + i, zero, count);
  });
}

// The largest magnitude as bits: those order like integers, NaN above infinity. The compiler makes the vectors.
template <class T> uint32_t absmax_bits(const void *from, int64_t n) {
  const T *x = static_cast<const T *>(from);
  uint32_t top = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint32_t bits = std::bit_cast<uint32_t>(to_float(x[i])) & 0x7fffffffu;
    top = bits > top ? bits : top;
  }
  return top;
}

// Adds the squares of x * scale, at most 2^22 each, in units of 1 and 2^-22. 256 of them fit into 32 bits.
template <class T> void squares(const void *from, int64_t n, double scale, int64_t *high, int64_t *low) {
  const T *x = static_cast<const T *>(from);
  for (int64_t start = 0; start < n; start += 256, x += 256) {
    const int count = n - start < 256 ? static_cast<int>(n - start) : 256;
    int32_t whole_sum = 0, rest_sum = 0;
    for (int i = 0; i < count; i++) {
      const double value = static_cast<double>(to_float(x[i])) * scale, square = value * value;
      const int32_t whole = static_cast<int32_t>(square);
      whole_sum += whole;
      rest_sum += static_cast<int32_t>((square - static_cast<double>(whole)) * 4194304.0 + 0.5);
    }
    *high += whole_sum;
    *low += rest_sum;
  }
}

template <int W, class G> constexpr OptimizerKernels optimizer_kernels() {
  return {{adamw_update<W, G, float>, adamw_update<W, G, bf16>, adamw_update<W, G, f16>}, absmax_bits<G>, squares<G>};
}

}  // namespace
}  // namespace zs::cpu
