// adagrad: steps shrink with the root of the sum of squared gradients.
#include "device/optimizer.h"

namespace zs::cuda {
namespace {
struct Adagrad : Rule {
  float lr, eps, l2;
  __device__ void operator()(float &p, float &sum, float &, float grad, float scale) const {
    const Exact g = Exact(grad) * scale + Exact(l2) * p, total = Exact(sum) + g * g;
    sum = total;
    p = Exact(p) - Exact(lr) * g / (root(total) + eps);
  }
};
}  // namespace

int32_t adagrad(zs_call *call) {
  return run_optimizer(call, {ADAGRAD_PARAM, ADAGRAD_SUM, -1, ADAGRAD_OUT, ADAGRAD_GRAD},
                       gradient_of(call, ADAGRAD_NORM, ADAGRAD_GRAD_SCALE, ADAGRAD_MAX_NORM, ADAGRAD_ZERO_GRAD),
                       Adagrad{{}, real(call, ADAGRAD_LR), real(call, ADAGRAD_EPS), real(call, ADAGRAD_WEIGHT_DECAY)});
}

}  // namespace zs::cuda
