// What the elementwise optimizers share (native/ops/optimizer.h): one pass in which a thread takes 8 parameters with
// their states and gradient by 16 bytes each, updates them, writes the 16-bit copy and zeroes the gradient. Clipping
// reads the norm from device memory, so the host never waits for it. An optimizer is a struct with the arithmetic of
// one element in Exact floats (the CPU's bits); states are updated in place.
#pragma once
#include "../../../ops/optimizer.h"
#include "exact.h"
#include "launch.h"
#include "vector.h"

namespace zs::cuda {

// 1 - x, rounded once: near 1 the difference of floats has few digits.
inline float rest(double x) { return static_cast<float>(1 - x); }

struct Gradient {
  const float *norm;  // or absent
  float scale;
  double max_norm;
  bool zero;
};
inline Gradient gradient_of(const zs_call *call, int norm, int scale, int max_norm, int zero) {
  return {data<float>(call, norm), real(call, scale), call->scalars[max_norm], call->scalars[zero] != 0};
}

__device__ inline bool finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

// The gradient's factor with clipping: `scale` as given is that of the loss, the norm is of gradients as stored.
__device__ inline float clipped(const Gradient &g) {
  if (!g.norm || !(g.max_norm > 0)) return g.scale;
  const double ratio = g.max_norm / (static_cast<double>(g.norm[0] * fabsf(g.scale)) + 1e-6);
  return ratio < 1 ? static_cast<float>(g.scale * ratio) : g.scale;
}

constexpr int kParameters = 8;  // of one thread at a time

// Places of a call's tensors; -1: has none.
struct Places { int param, first, second, out, grad; };

// What a rule does with param and its two states; operator()(param, first, second, gradient, scale) is one element's
// arithmetic. `clears_second`: that one is an update, 0 where the step is left out.
struct Rule {
  static constexpr bool reads_param = true, writes_param = true, reads_first = true, writes_first = true;
  static constexpr bool reads_second = false, writes_second = false, clears_second = false;
};

// The copy of the parameters in the model's type; absent: none. Which type is a branch that all threads take alike, for a
// third of the kernels.
struct ModelCopy {
  void *data;
  int dtype;

  template <bool V, int N> __device__ void write(int64_t i, const Floats<N> &p, int n) const {
    if (dtype == ZS_BF16) store<V>(static_cast<bf16 *>(data) + i, p, n);
    else if (dtype == ZS_F16) store<V>(static_cast<f16 *>(data) + i, p, n);
    else store<V>(static_cast<float *>(data) + i, p, n);
  }
};

template <class R, class G, bool V> struct Update {
  static constexpr int N = kParameters;
  float *param, *first, *second;
  ModelCopy out;
  G *grad;
  Gradient gradient;
  R rule;

  __device__ void operator()(int64_t i, int n) const {
    const bool skip = gradient.norm && !finite(gradient.norm[0]);
    if (!skip) {
      const Floats<N> g = load<V, N>(grad + i, n);
      Floats<N> p{}, a{}, b{};
      if (R::reads_param) p = load<V, N>(param + i, n);
      if (R::reads_first) a = load<V, N>(first + i, n);
      if (R::reads_second) b = load<V, N>(second + i, n);
      const float scale = clipped(gradient);
#pragma unroll
      for (int j = 0; j < N; j++) rule(p.at[j], a.at[j], b.at[j], g.at[j], scale);
      if (R::writes_param) store<V>(param + i, p, n);
      if (R::writes_first) store<V>(first + i, a, n);
      if (R::writes_second) store<V>(second + i, b, n);
      if (out.data) out.write<V>(i, p, n);
    } else if (R::clears_second) {
      store<V>(second + i, Floats<N>{}, n);
    }
    if (gradient.zero && !skip) store<V>(grad + i, Floats<N>{}, n);
  }
};

template <class R> int32_t run_optimizer(zs_call *call, const Places &p, const Gradient &gradient, const R &rule) {
  const ModelCopy out = p.out < 0 ? ModelCopy{nullptr, ZS_F32} : ModelCopy{data<void>(call, p.out), dtype_of(call, p.out)};
  uintptr_t all = 0;
  for (int place : {p.param, p.first, p.second, p.out, p.grad})
    if (place >= 0) all |= reinterpret_cast<uintptr_t>(call->tensors[place].data);
  const auto at = [call](int place) { return place < 0 ? nullptr : data<float>(call, place); };
  return by_flag(all % 16 == 0, [&](auto v) {
    return by_float(call, dtype_of(call, p.grad), [&]<class G>(G) {
      const Update<R, G, v.value> body{at(p.param), at(p.first), at(p.second), out, data<G>(call, p.grad), gradient, rule};
      return run_packs<kParameters>(call, count_of(call, p.grad), body);
    });
  });
}

}  // namespace zs::cuda
