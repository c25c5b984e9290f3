// muon: momentum, and the matrix that is then made orthogonal (matmuls in lib/optim/newton-schulz.ts) and applied.
#include "device/optimizer.h"

namespace zs::cuda {
namespace {
struct Muon : Rule {
  static constexpr bool reads_param = false, writes_param = false, writes_second = true, clears_second = true;
  float beta, left;
  bool nesterov;
  __device__ void operator()(float &, float &m, float &update, float grad, float scale) const {
    const Exact g = Exact(grad) * scale, mean = Exact(m) + Exact(left) * (g - m);
    m = mean;
    update = nesterov ? g + Exact(beta) * (mean - g) : mean;
  }
};
}  // namespace

int32_t muon(zs_call *call) {
  return run_optimizer(call, {-1, MUON_M, MUON_UPDATE, -1, MUON_GRAD},
                       gradient_of(call, MUON_NORM, MUON_GRAD_SCALE, MUON_MAX_NORM, MUON_ZERO_GRAD),
                       Muon{{}, real(call, MUON_BETA), rest(call->scalars[MUON_BETA]), call->scalars[MUON_NESTEROV] != 0});
}

}  // namespace zs::cuda
