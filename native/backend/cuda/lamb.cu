// lamb: the moments and the update before the trust ratio, which needs norms over whole parameters (apply_update).
// Four buffers of f32 besides the gradient, so a walk of its own.
#include "device/optimizer.h"

namespace zs::cuda {
namespace {
struct Hyper { float beta2, rest1, rest2, inside, outside, l2, bias1, bias2; };

template <class G, bool V> struct Lamb {
  static constexpr int N = kParameters;
  float *m, *v, *update;
  G *grad;
  const float *param;
  Gradient gradient;
  Hyper h;

  __device__ float element(float &m, float &v, float grad, float p, float scale) const {
    const Exact g = Exact(grad) * scale;
    const Exact mean = Exact(m) + Exact(h.rest1) * (g - m);
    const Exact square = Exact(h.beta2) * v + Exact(h.rest2) * g * g;
    m = mean;
    v = square;
    return mean / h.bias1 / (root(square / h.bias2 + h.inside) + h.outside) + Exact(h.l2) * p;
  }
  __device__ void operator()(int64_t i, int n) const {
    Floats<N> step{};
    const bool skip = gradient.norm && !finite(gradient.norm[0]);
    if (!skip) {
      const Floats<N> g = load<V, N>(grad + i, n), p = load<V, N>(param + i, n);
      Floats<N> mean = load<V, N>(m + i, n), square = load<V, N>(v + i, n);
      const float scale = clipped(gradient);
#pragma unroll
      for (int j = 0; j < N; j++) step.at[j] = element(mean.at[j], square.at[j], g.at[j], p.at[j], scale);
      store<V>(m + i, mean, n);
      store<V>(v + i, square, n);
    }
    store<V>(update + i, step, n);
    if (gradient.zero && !skip) store<V>(grad + i, Floats<N>{}, n);
  }
};
}  // namespace

int32_t lamb(zs_call *call) {
  const double *s = call->scalars;
  const bool inside = s[LAMB_EPS_INSIDE] != 0;
  const float eps = real(call, LAMB_EPS);
  const Hyper h{real(call, LAMB_BETA2), rest(s[LAMB_BETA1]), rest(s[LAMB_BETA2]), inside ? eps : 0, inside ? 0 : eps,
                real(call, LAMB_WEIGHT_DECAY), real(call, LAMB_BIAS1), real(call, LAMB_BIAS2)};
  const Gradient gradient = gradient_of(call, LAMB_NORM, LAMB_GRAD_SCALE, LAMB_MAX_NORM, LAMB_ZERO_GRAD);
  return by_flag(aligned(call, {LAMB_M, LAMB_V, LAMB_UPDATE, LAMB_GRAD, LAMB_PARAM}), [&](auto v) {
    return by_float(call, dtype_of(call, LAMB_GRAD), [&]<class G>(G) {
      const Lamb<G, v.value> body{data<float>(call, LAMB_M), data<float>(call, LAMB_V), data<float>(call, LAMB_UPDATE),
                                  data<G>(call, LAMB_GRAD), data<float>(call, LAMB_PARAM), gradient, h};
      return run_packs<kParameters>(call, count_of(call, LAMB_GRAD), body);
    });
  });
}

}  // namespace zs::cuda
