// lion: steps of one size, in the direction of the sign of an average of momentum and gradient.
#include "device/optimizer.h"

namespace zs::cuda {
namespace {
struct Lion : Rule {
  float lr, rest1, rest2, keep;
  __device__ void operator()(float &p, float &m, float &, float grad, float scale) const {
    const Exact g = Exact(grad) * scale, direction = Exact(m) + Exact(rest1) * (g - m);
    const float step = direction > 0.0f ? lr : direction < 0.0f ? -lr : 0.0f;
    m = Exact(m) + Exact(rest2) * (g - m);
    p = Exact(p) * keep - step;
  }
};
}  // namespace

int32_t lion(zs_call *call) {
  const double *s = call->scalars;
  return run_optimizer(call, {LION_PARAM, LION_M, -1, LION_OUT, LION_GRAD},
                       gradient_of(call, LION_NORM, LION_GRAD_SCALE, LION_MAX_NORM, LION_ZERO_GRAD),
                       Lion{{}, real(call, LION_LR), rest(s[LION_BETA1]), rest(s[LION_BETA2]), rest(s[LION_LR] * s[LION_WEIGHT_DECAY])});
}

}  // namespace zs::cuda
