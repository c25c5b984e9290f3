// The two passes of the global norm. Only operations that IEEE rounds in one way, and no fused ones: the same bits at
// every width and for every cut.
#pragma once
#include "rows.h"
#include "vmath.h"

namespace zs::cpu {
namespace {

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

template <class G> constexpr GradientKernels gradient_kernels() { return {absmax_bits<G>, squares<G>}; }

}  // namespace
}  // namespace zs::cpu
