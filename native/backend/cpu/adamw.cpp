// adamw: one pass over flat buffers, elementwise, so that any cut gives the same bits.
#include <cmath>
#include <cstring>

#include "../../ops/optimizer.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {
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
  const bool decoupled = s[ADAMW_ADAM_W] != 0, zero = s[ADAMW_ZERO_GRAD] != 0;
  const float lr = static_cast<float>(s[ADAMW_LR]), decay = static_cast<float>(s[ADAMW_WEIGHT_DECAY]);
  const float beta1 = static_cast<float>(s[ADAMW_BETA1]), beta2 = static_cast<float>(s[ADAMW_BETA2]);
  const AdamwStep step{scale, decoupled ? 0 : decay, 1 - beta1, beta2, 1 - beta2, decoupled ? 1 - lr * decay : 1,
                       lr / static_cast<float>(s[ADAMW_BIAS1]), static_cast<float>(1 / std::sqrt(s[ADAMW_BIAS2])),
                       static_cast<float>(s[ADAMW_EPS]), zero};
  float *p = data<float>(call, ADAMW_PARAM), *m = data<float>(call, ADAMW_M), *v = data<float>(call, ADAMW_V);
  const bool has_out = present(call, ADAMW_OUT);
  return by_float(call, dtype_of(call, ADAMW_GRAD), [&]<class G>(G) {
    G *grad = data<G>(call, ADAMW_GRAD);
    return by_float(call, has_out ? dtype_of(call, ADAMW_OUT) : ZS_F32, [&]<class O>(O) {
      O *out = data<O>(call, ADAMW_OUT);
      const auto update = row_kernels().optimizer[dtype_of(call, ADAMW_GRAD)].adamw[has_out ? dtype_of(call, ADAMW_OUT) : ZS_F32];
      parallel_for(call, count_of(call, ADAMW_PARAM), 4096, [&](int64_t begin, int64_t end) {
        if (!skip) update(p + begin, m + begin, v + begin, grad + begin, has_out ? out + begin : nullptr, end - begin, step);
        else if (zero) std::memset(grad + begin, 0, static_cast<size_t>(end - begin) * sizeof(G));
      });
      return int32_t{ZS_OK};
    });
  });
}

}  // namespace zs::cpu
