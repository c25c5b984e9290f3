// adamw: one pass over flat buffers, elementwise, so that any cut gives the same bits.
#include <cmath>

#include "../../core/clones.h"
#include "../../ops/optimizer.h"
#include "floats.h"

namespace zs::cpu {
namespace {
struct Hyper { float lr, beta1, beta2, eps, decay, bias1, root2, scale; bool decoupled, zero; };

template <class G> ZS_CLONES
void update(float *__restrict p, float *__restrict m, float *__restrict v, G *__restrict grad, int64_t n, const Hyper h) {
  const float keep = h.decoupled ? 1 - h.lr * h.decay : 1, l2 = h.decoupled ? 0 : h.decay, step = h.lr / h.bias1;
  for (int64_t i = 0; i < n; i++) {
    const float g = to_float(grad[i]) * h.scale + l2 * p[i];
    const float mean = m[i] + (1 - h.beta1) * (g - m[i]);
    const float square = h.beta2 * v[i] + (1 - h.beta2) * g * g;
    m[i] = mean;
    v[i] = square;
    p[i] = p[i] * keep - step * mean / (std::sqrt(square) / h.root2 + h.eps);
  }
}
}  // namespace

int32_t adamw(zs_call *call) {
  const double *s = call->scalars;
  float scale = static_cast<float>(s[ADAMW_GRAD_SCALE]);
  bool skip = false;
  if (present(call, ADAMW_NORM)) {
    const float norm = data<float>(call, ADAMW_NORM)[0];
    skip = !std::isfinite(norm);
    const double limit = s[ADAMW_MAX_NORM], ratio = limit / (norm * std::fabs(scale) + 1e-6);
    if (limit > 0 && ratio < 1) scale = static_cast<float>(scale * ratio);
  }
  const Hyper h{static_cast<float>(s[ADAMW_LR]), static_cast<float>(s[ADAMW_BETA1]), static_cast<float>(s[ADAMW_BETA2]),
                static_cast<float>(s[ADAMW_EPS]), static_cast<float>(s[ADAMW_WEIGHT_DECAY]), static_cast<float>(s[ADAMW_BIAS1]),
                static_cast<float>(std::sqrt(s[ADAMW_BIAS2])), scale, s[ADAMW_ADAM_W] != 0, s[ADAMW_ZERO_GRAD] != 0};
  float *p = data<float>(call, ADAMW_PARAM), *m = data<float>(call, ADAMW_M), *v = data<float>(call, ADAMW_V);
  const int64_t count = count_of(call, ADAMW_PARAM);
  const bool has_out = present(call, ADAMW_OUT);
  return by_float(call, dtype_of(call, ADAMW_GRAD), [&]<class G>(G) {
    G *grad = data<G>(call, ADAMW_GRAD);
    return by_float(call, has_out ? dtype_of(call, ADAMW_OUT) : ZS_F32, [&]<class O>(O) {
      O *out = data<O>(call, ADAMW_OUT);
      parallel_for(call, count, 4096, [&](int64_t begin, int64_t end) {
        // Blocks stay in the first-level cache for the copies that follow the update.
        for (int64_t i = begin; i < end; i += 1024) {
          const int64_t n = end - i < 1024 ? end - i : 1024;
          if (!skip) {
            update(p + i, m + i, v + i, grad + i, n, h);
            if (has_out) narrow(out + i, p + i, n);
          }
          if (h.zero) for (int64_t j = 0; j < n; j++) grad[i + j] = from_float<G>(0);
        }
      });
      return int32_t{ZS_OK};
    });
  });
}

}  // namespace zs::cpu
