// unary and unary_backward: activations and other functions of one value.
#include <cmath>

#include "../../ops/elementwise.h"
#include "floats.h"

namespace zs::cpu {
namespace {
constexpr float kRoot = 0.7978845608028654f;  // sqrt(2/pi)
constexpr float kCubic = 0.044715f;

float value(int kind, float x) {
  switch (kind) {
    case UNARY_GELU_TANH: return 0.5f * x * (1 + std::tanh(kRoot * (x + kCubic * x * x * x)));
    case UNARY_GELU_ERF: return 0.5f * x * (1 + std::erf(x * 0.70710678118654752f));
    case UNARY_SILU: return x / (1 + std::exp(-x));
    case UNARY_RELU: return x > 0 || x != x ? x : 0;
    case UNARY_TANH: return std::tanh(x);
    case UNARY_SIGMOID: return 1 / (1 + std::exp(-x));
    case UNARY_EXP: return std::exp(x);
    case UNARY_LOG: return std::log(x);
    case UNARY_SQRT: return std::sqrt(x);
    case UNARY_SQUARE: return x * x;
    case UNARY_ABS: return std::fabs(x);
    default: return 1 / x;
  }
}

float slope(int kind, float x, float y) {
  switch (kind) {
    case UNARY_GELU_TANH: {
      float t = std::tanh(kRoot * (x + kCubic * x * x * x));
      return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * kRoot * (1 + 3 * kCubic * x * x);
    }
    case UNARY_GELU_ERF: return 0.5f * (1 + std::erf(x * 0.70710678118654752f)) + x * 0.3989422804014327f * std::exp(-0.5f * x * x);
    case UNARY_SILU: {
      float s = 1 / (1 + std::exp(-x));
      return s * (1 + x * (1 - s));
    }
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
    parallel_for(call, count_of(call, UNARY_Y), 4096, [&](int64_t begin, int64_t end) {
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
    parallel_for(call, count_of(call, UNARY_DX), 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        float at = x ? to_float(x[i]) : 0, result = y ? to_float(y[i]) : 0;
        dx[i] = from_float<T>(to_float(dy[i]) * slope(kind, at, result));
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
