// sgd: with momentum (plain or Nesterov's) where there is a buffer for it, with L2 regularisation.
#include "device/optimizer.h"

namespace zs::cuda {
namespace {
struct Sgd : Rule {
  float lr, momentum, left, l2;
  bool nesterov;
  __device__ void operator()(float &p, float &m, float &, float grad, float scale) const {
    const Exact g = Exact(grad) * scale + Exact(l2) * p;
    const Exact mean = Exact(momentum) * m + Exact(left) * g;
    m = mean;
    p = Exact(p) - Exact(lr) * (nesterov ? g + Exact(momentum) * mean : mean);
  }
};

struct PlainSgd : Rule {
  static constexpr bool reads_first = false, writes_first = false;
  float lr, l2;
  __device__ void operator()(float &p, float &, float &, float grad, float scale) const {
    p = Exact(p) - Exact(lr) * (Exact(grad) * scale + Exact(l2) * p);
  }
};
}  // namespace

int32_t sgd(zs_call *call) {
  const Gradient gradient = gradient_of(call, SGD_NORM, SGD_GRAD_SCALE, SGD_MAX_NORM, SGD_ZERO_GRAD);
  const float lr = real(call, SGD_LR), l2 = real(call, SGD_WEIGHT_DECAY);
  if (!present(call, SGD_M)) return run_optimizer(call, {SGD_PARAM, -1, -1, SGD_OUT, SGD_GRAD}, gradient, PlainSgd{{}, lr, l2});
  const Sgd rule{{}, lr, real(call, SGD_MOMENTUM), rest(call->scalars[SGD_DAMPENING]), l2, call->scalars[SGD_NESTEROV] != 0};
  return run_optimizer(call, {SGD_PARAM, SGD_M, -1, SGD_OUT, SGD_GRAD}, gradient, rule);
}

}  // namespace zs::cuda
