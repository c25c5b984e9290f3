// adamw: both moments, decay and step in one pass.
#include "optimizer_pass.h"

namespace zs::cpu {
namespace {
struct Hyper { float beta2, rest1, rest2, eps, l2, keep, step, root2, scale; };

ZS_CLONES void update(float *__restrict p, float *__restrict m, float *__restrict v, const float *__restrict grad, int64_t n,
                      const Hyper h) {
  for (int64_t i = 0; i < n; i++) {
    const float g = grad[i] * h.scale + h.l2 * p[i];
    const float mean = m[i] + h.rest1 * (g - m[i]);
    const float square = h.beta2 * v[i] + h.rest2 * g * g;
    m[i] = mean;
    v[i] = square;
    p[i] = p[i] * h.keep - h.step * mean / (std::sqrt(square) / h.root2 + h.eps);
  }
}
}  // namespace

int32_t adamw(zs_call *call) {
  const double *s = call->scalars;
  const Gradient g = gradient_of(call, ADAMW_NORM, s[ADAMW_GRAD_SCALE], s[ADAMW_MAX_NORM], s[ADAMW_ZERO_GRAD]);
  const bool decoupled = s[ADAMW_ADAM_W] != 0;
  const Hyper h{static_cast<float>(s[ADAMW_BETA2]), rest(s[ADAMW_BETA1]), rest(s[ADAMW_BETA2]), static_cast<float>(s[ADAMW_EPS]),
                static_cast<float>(decoupled ? 0 : s[ADAMW_WEIGHT_DECAY]), decoupled ? rest(s[ADAMW_LR] * s[ADAMW_WEIGHT_DECAY]) : 1,
                static_cast<float>(s[ADAMW_LR] / s[ADAMW_BIAS1]), static_cast<float>(std::sqrt(s[ADAMW_BIAS2])), g.scale};
  float *p = data<float>(call, ADAMW_PARAM), *m = data<float>(call, ADAMW_M), *v = data<float>(call, ADAMW_V);
  return optimizer_pass(call, ADAMW_PARAM, ADAMW_OUT, ADAMW_GRAD, g, [&](int64_t i, int64_t n, const float *gradient) {
    update(p + i, m + i, v + i, gradient, n, h);
  });
}

}  // namespace zs::cpu
