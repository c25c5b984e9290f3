// unary, unary_backward: activations and other functions of one value. Bound by memory: 16 bytes per thread and
// tensor at a time, the kind decided once per pack so that one kernel per element type serves all twelve.
#include "device/activations.h"
#include "device/launch.h"
#include "device/vector.h"

namespace zs::cuda {
namespace {

template <int N> struct Value {
  Floats<N> &x;
  template <int kind> __device__ void run() {
#pragma unroll
    for (int j = 0; j < N; j++) x.at[j] = unary_value<kind>(x.at[j]);
  }
};
template <class T, bool V> struct Unary {
  static constexpr int N = kPack<T>;
  T *y;
  const T *x;
  int kind;
  __device__ void operator()(int64_t i, int n) const {
    Floats<N> v = load<V, N>(x + i, n);
    Value<N> value{v};
    by_kind(kind, value);
    store<V>(y + i, v, n);
  }
};

template <int N> struct Slope {
  Floats<N> &d;
  const Floats<N> &x, &y;
  template <int kind> __device__ void run() {
#pragma unroll
    for (int j = 0; j < N; j++) d.at[j] *= unary_slope<kind>(x.at[j], y.at[j]);
  }
};
template <class T, bool V> struct UnaryBackward {
  static constexpr int N = kPack<T>;
  T *dx;
  const T *dy, *x, *y;  // x or y may be absent
  int kind;
  __device__ void operator()(int64_t i, int n) const {
    Floats<N> d = load<V, N>(dy + i, n), at{}, result{};
    if (x) at = load<V, N>(x + i, n);
    if (y) result = load<V, N>(y + i, n);
    Slope<N> slope{d, at, result};
    by_kind(kind, slope);
    store<V>(dx + i, d, n);
  }
};

}  // namespace

int32_t unary(zs_call *call) {
  return by_float(call, dtype_of(call, UNARY_X), [&]<class T>(T) {
    return by_flag(aligned(call, {UNARY_Y, UNARY_X}), [&](auto v) {
      const Unary<T, v.value> body{data<T>(call, UNARY_Y), data<T>(call, UNARY_X), static_cast<int>(integer(call, 0))};
      return run_packs<kPack<T>>(call, count_of(call, UNARY_Y), body);
    });
  });
}

int32_t unary_backward(zs_call *call) {
  return by_float(call, dtype_of(call, UNARY_BACKWARD_DY), [&]<class T>(T) {
    return by_flag(aligned(call, {UNARY_DX, UNARY_BACKWARD_DY, UNARY_BACKWARD_X, UNARY_BACKWARD_Y}), [&](auto v) {
      const UnaryBackward<T, v.value> body{data<T>(call, UNARY_DX), data<T>(call, UNARY_BACKWARD_DY), data<T>(call, UNARY_BACKWARD_X),
                                           data<T>(call, UNARY_BACKWARD_Y), static_cast<int>(integer(call, 0))};
      return run_packs<kPack<T>>(call, count_of(call, UNARY_DX), body);
    });
  });
}

}  // namespace zs::cuda
