// swiglu_forward, swiglu_backward: silu(gate) * up, one pass over each tensor.
#include "device/activations.h"
#include "device/launch.h"
#include "device/vector.h"

namespace zs::cuda {
namespace {
template <class T, bool V> struct Swiglu {
  static constexpr int N = kPack<T>;
  T *y;
  const T *gate, *up;
  __device__ void operator()(int64_t i, int n) const {
    Floats<N> g = load<V, N>(gate + i, n);
    const Floats<N> u = load<V, N>(up + i, n);
#pragma unroll
    for (int j = 0; j < N; j++) g.at[j] = silu(g.at[j]) * u.at[j];
    store<V>(y + i, g, n);
  }
};

template <class T, bool V> struct SwigluBackward {
  static constexpr int N = kPack<T>;
  T *dgate, *dup;
  const T *dy, *gate, *up;
  __device__ void operator()(int64_t i, int n) const {
    const Floats<N> g = load<V, N>(gate + i, n), u = load<V, N>(up + i, n), d = load<V, N>(dy + i, n);
    Floats<N> dg, du;
#pragma unroll
    for (int j = 0; j < N; j++) {
      const float s = sigmoid(g.at[j]);
      dg.at[j] = d.at[j] * u.at[j] * (s * (1 + g.at[j] * (1 - s)));
      du.at[j] = d.at[j] * g.at[j] * s;
    }
    store<V>(dgate + i, dg, n);
    store<V>(dup + i, du, n);
  }
};
}  // namespace

int32_t swiglu_forward(zs_call *call) {
  return by_float(call, dtype_of(call, SWIGLU_GATE), [&]<class T>(T) {
    return by_flag(aligned(call, {SWIGLU_Y, SWIGLU_GATE, SWIGLU_UP}), [&](auto v) {
      const Swiglu<T, v.value> body{data<T>(call, SWIGLU_Y), data<T>(call, SWIGLU_GATE), data<T>(call, SWIGLU_UP)};
      return run_packs<kPack<T>>(call, count_of(call, SWIGLU_Y), body);
    });
  });
}

int32_t swiglu_backward(zs_call *call) {
  return by_float(call, dtype_of(call, SWIGLU_BACKWARD_DY), [&]<class T>(T) {
    const bool wide = aligned(call, {SWIGLU_DGATE, SWIGLU_DUP, SWIGLU_BACKWARD_DY, SWIGLU_BACKWARD_GATE, SWIGLU_BACKWARD_UP});
    return by_flag(wide, [&](auto v) {
      const SwigluBackward<T, v.value> body{data<T>(call, SWIGLU_DGATE), data<T>(call, SWIGLU_DUP), data<T>(call, SWIGLU_BACKWARD_DY),
                                            data<T>(call, SWIGLU_BACKWARD_GATE), data<T>(call, SWIGLU_BACKWARD_UP)};
      return run_packs<kPack<T>>(call, count_of(call, SWIGLU_DGATE), body);
    });
  });
}

}  // namespace zs::cuda
