// muon: momentum, and the matrix that is then made orthogonal (lib/optim/newton-schulz.ts) and applied (apply_update).
#include <cstring>

#include "optimizer_pass.h"

namespace zs::cpu {
namespace {
ZS_CLONES void momentum(float *__restrict m, float *__restrict update, const float *__restrict grad, int64_t n, float beta,
                        float rest, float scale, bool nesterov) {
  for (int64_t i = 0; i < n; i++) {
    const float g = grad[i] * scale, mean = m[i] + rest * (g - m[i]);
    m[i] = mean;
    update[i] = nesterov ? g + beta * (mean - g) : mean;
  }
}
}  // namespace

int32_t muon(zs_call *call) {
  const double *s = call->scalars;
  const Gradient g = gradient_of(call, MUON_NORM, s[MUON_GRAD_SCALE], s[MUON_MAX_NORM], s[MUON_ZERO_GRAD]);
  const float beta = static_cast<float>(s[MUON_BETA]), left = rest(s[MUON_BETA]);
  const bool nesterov = s[MUON_NESTEROV] != 0;
  float *m = data<float>(call, MUON_M), *update = data<float>(call, MUON_UPDATE);
  return gradient_pass(call, MUON_GRAD, g, [&](int64_t i, int64_t n, const float *gradient) {
    if (g.skip) memset(update + i, 0, sizeof(float) * static_cast<size_t>(n));
    else momentum(m + i, update + i, gradient, n, beta, left, g.scale, nesterov);
  });
}

}  // namespace zs::cpu
