// lamb: the moments and the update before the trust ratio, which needs norms over whole parameters (see apply_update).
#include <cstring>

#include "optimizer_pass.h"

namespace zs::cpu {
namespace {
struct Hyper { float beta2, rest1, rest2, inside, outside, l2, bias1, bias2, scale; };

ZS_CLONES void moments(float *__restrict m, float *__restrict v, float *__restrict update, const float *__restrict p,
                       const float *__restrict grad, int64_t n, const Hyper h) {
  for (int64_t i = 0; i < n; i++) {
    const float g = grad[i] * h.scale;
    const float mean = m[i] + h.rest1 * (g - m[i]);
    const float square = h.beta2 * v[i] + h.rest2 * g * g;
    m[i] = mean;
    v[i] = square;
    update[i] = mean / h.bias1 / (std::sqrt(square / h.bias2 + h.inside) + h.outside) + h.l2 * p[i];
  }
}
}  // namespace

int32_t lamb(zs_call *call) {
  const double *s = call->scalars;
  const Gradient g = gradient_of(call, LAMB_NORM, s[LAMB_GRAD_SCALE], s[LAMB_MAX_NORM], s[LAMB_ZERO_GRAD]);
  const bool inside = s[LAMB_EPS_INSIDE] != 0;
  const float eps = static_cast<float>(s[LAMB_EPS]);
  const Hyper h{static_cast<float>(s[LAMB_BETA2]), rest(s[LAMB_BETA1]), rest(s[LAMB_BETA2]), inside ? eps : 0, inside ? 0 : eps,
                static_cast<float>(s[LAMB_WEIGHT_DECAY]), static_cast<float>(s[LAMB_BIAS1]), static_cast<float>(s[LAMB_BIAS2]),
                g.scale};
  float *m = data<float>(call, LAMB_M), *v = data<float>(call, LAMB_V), *update = data<float>(call, LAMB_UPDATE);
  const float *p = data<float>(call, LAMB_PARAM);
  return gradient_pass(call, LAMB_GRAD, g, [&](int64_t i, int64_t n, const float *gradient) {
    if (g.skip) memset(update + i, 0, sizeof(float) * static_cast<size_t>(n));
    else moments(m + i, v + i, update + i, p + i, gradient, n, h);
  });
}

}  // namespace zs::cpu
