// adagrad: steps shrink with the root of the sum of squared gradients.
#include "optimizer_pass.h"

namespace zs::cpu {
namespace {
struct Hyper { float lr, eps, l2, scale; };

ZS_CLONES void update(float *__restrict p, float *__restrict sum, const float *__restrict grad, int64_t n, const Hyper h) {
  for (int64_t i = 0; i < n; i++) {
    const float g = grad[i] * h.scale + h.l2 * p[i];
    const float total = sum[i] + g * g;
    sum[i] = total;
    p[i] -= h.lr * g / (std::sqrt(total) + h.eps);
  }
}
}  // namespace

int32_t adagrad(zs_call *call) {
  const double *s = call->scalars;
  const Gradient g = gradient_of(call, ADAGRAD_NORM, s[ADAGRAD_GRAD_SCALE], s[ADAGRAD_MAX_NORM], s[ADAGRAD_ZERO_GRAD]);
  const Hyper h{static_cast<float>(s[ADAGRAD_LR]), static_cast<float>(s[ADAGRAD_EPS]), static_cast<float>(s[ADAGRAD_WEIGHT_DECAY]),
                g.scale};
  float *p = data<float>(call, ADAGRAD_PARAM), *sum = data<float>(call, ADAGRAD_SUM);
  return optimizer_pass(call, ADAGRAD_PARAM, ADAGRAD_OUT, ADAGRAD_GRAD, g, [&](int64_t i, int64_t n, const float *gradient) {
    update(p + i, sum + i, gradient, n, h);
  });
}

}  // namespace zs::cpu
