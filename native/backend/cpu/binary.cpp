// binary: y = f(a, b) with numpy broadcasting; fast where shapes are equal or one operand is a scalar.
#include <cmath>

#include "../../ops/elementwise.h"
#include "floats.h"

namespace zs::cpu {
namespace {
template <int kind> inline float apply(float a, float b) {
  if constexpr (kind == BINARY_ADD) return a + b;
  if constexpr (kind == BINARY_SUB) return a - b;
  if constexpr (kind == BINARY_MUL) return a * b;
  if constexpr (kind == BINARY_DIV) return a / b;
  if constexpr (kind == BINARY_MAX) return a > b || a != a ? a : b;
  return a < b || a != a ? a : b;
}

// Steps of an operand along y's dims: 0 where it is broadcast.
void steps_of(const zs_tensor &x, const zs_tensor &y, int64_t *steps) {
  int64_t step = 1;
  for (int d = y.ndim - 1; d >= 0; d--) {
    int i = d - y.ndim + x.ndim;
    int64_t size = i >= 0 ? x.dims[i] : 1;
    steps[d] = size == 1 ? 0 : step;
    step *= size;
  }
}

template <int kind, class T> int32_t run(zs_call *call) {
  const zs_tensor &ya = call->tensors[BINARY_Y];
  const T *a = data<T>(call, BINARY_A), *b = data<T>(call, BINARY_B);
  T *y = data<T>(call, BINARY_Y);
  const int64_t count = ya.count, na = count_of(call, BINARY_A), nb = count_of(call, BINARY_B);
  if ((na == count || na == 1) && (nb == count || nb == 1)) {
    const bool one_a = na == 1 && count != 1, one_b = nb == 1 && count != 1;
    const float sa = one_a ? to_float(a[0]) : 0, sb = one_b ? to_float(b[0]) : 0;
    parallel_for(call, count, 16384, [&](int64_t begin, int64_t end) {
      if (!one_a && !one_b) for (int64_t i = begin; i < end; i++) y[i] = from_float<T>(apply<kind>(to_float(a[i]), to_float(b[i])));
      else if (one_b) for (int64_t i = begin; i < end; i++) y[i] = from_float<T>(apply<kind>(one_a ? sa : to_float(a[i]), sb));
      else for (int64_t i = begin; i < end; i++) y[i] = from_float<T>(apply<kind>(sa, to_float(b[i])));
    });
    return ZS_OK;
  }
  if (count == 0) return ZS_OK;
  int64_t pa[ZS_MAX_DIMS], pb[ZS_MAX_DIMS];
  steps_of(call->tensors[BINARY_A], ya, pa);
  steps_of(call->tensors[BINARY_B], ya, pb);
  const int last = ya.ndim - 1;
  const int64_t cols = ya.dims[last];
  parallel_for(call, count / cols, row_grain(cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      int64_t at_a = 0, at_b = 0, rest = row;
      for (int d = last - 1; d >= 0; d--) {
        int64_t i = rest % ya.dims[d];
        rest /= ya.dims[d];
        at_a += i * pa[d];
        at_b += i * pb[d];
      }
      T *out = y + row * cols;
      for (int64_t c = 0; c < cols; c++) out[c] = from_float<T>(apply<kind>(to_float(a[at_a + c * pa[last]]), to_float(b[at_b + c * pb[last]])));
    }
  });
  return ZS_OK;
}
}  // namespace

int32_t binary(zs_call *call) {
  return by_float(call, dtype_of(call, BINARY_Y), [&]<class T>(T) {
    switch (integer(call, 0)) {
      case BINARY_ADD: return run<BINARY_ADD, T>(call);
      case BINARY_SUB: return run<BINARY_SUB, T>(call);
      case BINARY_MUL: return run<BINARY_MUL, T>(call);
      case BINARY_DIV: return run<BINARY_DIV, T>(call);
      case BINARY_MAX: return run<BINARY_MAX, T>(call);
      default: return run<BINARY_MIN, T>(call);
    }
  });
}

}  // namespace zs::cpu
