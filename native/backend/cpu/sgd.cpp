// sgd: with momentum (plain or Nesterov's) where there is a buffer for it, with L2 regularisation.
#include "optimizer_pass.h"

namespace zs::cpu {
namespace {
struct Hyper { float lr, momentum, rest, l2, scale; bool nesterov; };

ZS_CLONES void plain(float *__restrict p, const float *__restrict grad, int64_t n, const Hyper h) {
  for (int64_t i = 0; i < n; i++) p[i] -= h.lr * (grad[i] * h.scale + h.l2 * p[i]);
}

ZS_CLONES void with_momentum(float *__restrict p, float *__restrict m, const float *__restrict grad, int64_t n, const Hyper h) {
  for (int64_t i = 0; i < n; i++) {
    const float g = grad[i] * h.scale + h.l2 * p[i];
    const float mean = h.momentum * m[i] + h.rest * g;
    m[i] = mean;
    p[i] -= h.lr * (h.nesterov ? g + h.momentum * mean : mean);
  }
}
}  // namespace

int32_t sgd(zs_call *call) {
  const double *s = call->scalars;
  const Gradient g = gradient_of(call, SGD_NORM, s[SGD_GRAD_SCALE], s[SGD_MAX_NORM], s[SGD_ZERO_GRAD]);
  const Hyper h{static_cast<float>(s[SGD_LR]), static_cast<float>(s[SGD_MOMENTUM]), rest(s[SGD_DAMPENING]),
                static_cast<float>(s[SGD_WEIGHT_DECAY]), g.scale, s[SGD_NESTEROV] != 0};
  float *p = data<float>(call, SGD_PARAM), *m = data<float>(call, SGD_M);
  return optimizer_pass(call, SGD_PARAM, SGD_OUT, SGD_GRAD, g, [&](int64_t i, int64_t n, const float *gradient) {
    if (m) with_momentum(p + i, m + i, gradient, n, h);
    else plain(p + i, gradient, n, h);
  });
}

}  // namespace zs::cpu
