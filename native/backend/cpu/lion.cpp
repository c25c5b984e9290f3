// lion: steps of one size, in the direction of the sign of an average of momentum and gradient.
#include "optimizer_pass.h"

namespace zs::cpu {
namespace {
struct Hyper { float lr, rest1, rest2, keep, scale; };

ZS_CLONES void update(float *__restrict p, float *__restrict m, const float *__restrict grad, int64_t n, const Hyper h) {
  for (int64_t i = 0; i < n; i++) {
    const float g = grad[i] * h.scale, direction = m[i] + h.rest1 * (g - m[i]);
    const float step = direction > 0 ? h.lr : direction < 0 ? -h.lr : 0.0f;
    m[i] += h.rest2 * (g - m[i]);
    p[i] = p[i] * h.keep - step;
  }
}
}  // namespace

int32_t lion(zs_call *call) {
  const double *s = call->scalars;
  const Gradient g = gradient_of(call, LION_NORM, s[LION_GRAD_SCALE], s[LION_MAX_NORM], s[LION_ZERO_GRAD]);
  const Hyper h{static_cast<float>(s[LION_LR]), rest(s[LION_BETA1]), rest(s[LION_BETA2]),
                rest(s[LION_LR] * s[LION_WEIGHT_DECAY]), g.scale};
  float *p = data<float>(call, LION_PARAM), *m = data<float>(call, LION_M);
  return optimizer_pass(call, LION_PARAM, LION_OUT, LION_GRAD, g, [&](int64_t i, int64_t n, const float *gradient) {
    update(p + i, m + i, gradient, n, h);
  });
}

}  // namespace zs::cpu
