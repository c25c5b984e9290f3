// adamw: both moments, decay, step, the 16-bit copy and the gradient's zeroing in one pass: 28 bytes per parameter with
// f32 states and 16-bit gradient and copy, each moved once. Squares and quotients are IEEE's, as on the CPU.
#include <cmath>

#include "device/optimizer.h"

namespace zs::cuda {
namespace {
struct AdamW : Rule {
  static constexpr bool reads_second = true, writes_second = true;
  float beta2, rest1, rest2, eps, l2, keep, step, root2;
  __device__ void operator()(float &p, float &m, float &v, float grad, float scale) const {
    const Exact g = Exact(grad) * scale + Exact(l2) * p;
    const Exact mean = Exact(m) + Exact(rest1) * (g - m);
    const Exact square = Exact(beta2) * v + Exact(rest2) * g * g;
    m = mean;
    v = square;
    p = Exact(p) * keep - Exact(step) * mean / (root(square) / root2 + eps);
  }
};
}  // namespace

int32_t adamw(zs_call *call) {
  const double *s = call->scalars;
  const bool decoupled = s[ADAMW_ADAM_W] != 0;
  const AdamW rule{{}, real(call, ADAMW_BETA2), rest(s[ADAMW_BETA1]), rest(s[ADAMW_BETA2]), real(call, ADAMW_EPS),
                   static_cast<float>(decoupled ? 0 : s[ADAMW_WEIGHT_DECAY]), decoupled ? rest(s[ADAMW_LR] * s[ADAMW_WEIGHT_DECAY]) : 1,
                   static_cast<float>(s[ADAMW_LR] / s[ADAMW_BIAS1]), static_cast<float>(std::sqrt(s[ADAMW_BIAS2]))};
  return run_optimizer(call, {ADAMW_PARAM, ADAMW_M, ADAMW_V, ADAMW_OUT, ADAMW_GRAD},
                       gradient_of(call, ADAMW_NORM, ADAMW_GRAD_SCALE, ADAMW_MAX_NORM, ADAMW_ZERO_GRAD), rule);
}

}  // namespace zs::cuda
