// apply_update: the step of optimizers whose update needed whole parameters: LAMB's trust ratio, Muon's matrices.
#include <algorithm>

#include "optimizer_pass.h"

namespace zs::cpu {
namespace {
ZS_CLONES void apply(float *__restrict p, const float *__restrict update, int64_t n, float keep, float step) {
  for (int64_t i = 0; i < n; i++) p[i] = p[i] * keep - step * update[i];
}

double trust_ratio(const zs_call *call) {
  if (!present(call, APPLY_UPDATE_PARAM_NORM) || !present(call, APPLY_UPDATE_UPDATE_NORM)) return 1;
  const double param = data<float>(call, APPLY_UPDATE_PARAM_NORM)[0], update = data<float>(call, APPLY_UPDATE_UPDATE_NORM)[0];
  if (param == 0 || update == 0) return 1;
  return std::max(call->scalars[APPLY_UPDATE_MIN], std::min(call->scalars[APPLY_UPDATE_MAX], param / update));
}
}  // namespace

int32_t apply_update(zs_call *call) {
  if (skips(call, APPLY_UPDATE_NORM)) return ZS_OK;
  const double lr = call->scalars[APPLY_UPDATE_LR];
  const float keep = rest(lr * call->scalars[APPLY_UPDATE_WEIGHT_DECAY]), step = static_cast<float>(lr * trust_ratio(call));
  float *p = data<float>(call, APPLY_UPDATE_PARAM);
  const float *update = data<float>(call, APPLY_UPDATE_UPDATE);
  const bool has_out = present(call, APPLY_UPDATE_OUT);
  return by_float(call, has_out ? dtype_of(call, APPLY_UPDATE_OUT) : ZS_F32, [&]<class O>(O) {
    O *out = data<O>(call, APPLY_UPDATE_OUT);
    parallel_for(call, count_of(call, APPLY_UPDATE_PARAM), 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += pass_block) {
        const int64_t n = std::min(end - i, pass_block);
        apply(p + i, update + i, n, keep, step);
        if (has_out) narrow_range(out + i, p + i, n);
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
