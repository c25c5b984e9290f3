// unary and unary_backward: activations and other functions of one value.
#include <cmath>

#include "../../ops/elementwise.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {
namespace {
// Kinds that have no vector form (rows_kernel.h has the others).
float value(int kind, float x) {
  switch (kind) {
    case UNARY_RELU: return x > 0 || x != x ? x : 0;
    case UNARY_LOG: return std::log(x);
    case UNARY_SQRT: return std::sqrt(x);
    case UNARY_SQUARE: return x * x;
    case UNARY_ABS: return std::fabs(x);
    default: return 1 / x;
  }
}

float slope(int kind, float x, float y) {
  switch (kind) {
    case UNARY_RELU: return y > 0 ? 1 : 0;
    case UNARY_TANH: return 1 - y * y;
    case UNARY_SIGMOID: return y * (1 - y);
    case UNARY_EXP: return y;
    case UNARY_LOG: return 1 / x;
    case UNARY_SQRT: return 0.5f / y;
    case UNARY_SQUARE: return 2 * x;
    case UNARY_ABS: return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f;
    default: return -y * y;
  }
}
}  // namespace

int32_t unary(zs_call *call) {
  int kind = static_cast<int>(integer(call, 0));
  return by_float(call, dtype_of(call, UNARY_X), [&]<class T>(T) {
    const T *x = data<T>(call, UNARY_X);
    T *y = data<T>(call, UNARY_Y);
    const Activations &vector = row_kernels().activations[dtype_of(call, UNARY_X)];
    parallel_for(call, count_of(call, UNARY_Y), 4096, [&](int64_t begin, int64_t end) {
      if (vector.value(kind, y + begin, x + begin, end - begin)) return;
      for (int64_t i = begin; i < end; i++) y[i] = from_float<T>(value(kind, to_float(x[i])));
    });
    return int32_t{ZS_OK};
  });
}

int32_t unary_backward(zs_call *call) {
  int kind = static_cast<int>(integer(call, 0));
  return by_float(call, dtype_of(call, UNARY_BACKWARD_DY), [&]<class T>(T) {
    const T *dy = data<T>(call, UNARY_BACKWARD_DY), *x = data<T>(call, UNARY_BACKWARD_X), *y = data<T>(call, UNARY_BACKWARD_Y);
    T *dx = data<T>(call, UNARY_DX);
    const Activations &vector = row_kernels().activations[dtype_of(call, UNARY_BACKWARD_DY)];
    parallel_for(call, count_of(call, UNARY_DX), 4096, [&](int64_t begin, int64_t end) {
      if (x && vector.slope(kind, dx + begin, dy + begin, x + begin, end - begin)) return;
      for (int64_t i = begin; i < end; i++) {
        float at = x ? to_float(x[i]) : 0, result = y ? to_float(y[i]) : 0;
        dx[i] = from_float<T>(to_float(dy[i]) * slope(kind, at, result));
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
