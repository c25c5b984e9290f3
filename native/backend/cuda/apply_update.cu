// apply_update: the step of optimizers whose update needed whole parameters: LAMB's trust ratio, Muon's matrices. The
// norms are read on the device, so the host never waits for them.
#include "device/optimizer.h"

namespace zs::cuda {
namespace {
template <bool V> struct Apply {
  static constexpr int N = kParameters;
  float *param;
  ModelCopy out;
  const float *update, *param_norm, *update_norm, *norm;
  double lr, lowest, highest;
  float keep;

  __device__ double trust_ratio() const {
    if (!param_norm || !update_norm) return 1;
    const double param = param_norm[0], update = update_norm[0];
    if (param == 0 || update == 0) return 1;
    const double ratio = param / update, most = ratio < highest ? ratio : highest;
    return lowest < most ? most : lowest;
  }
  __device__ void operator()(int64_t i, int n) const {
    if (norm && !finite(norm[0])) return;
    const float step = static_cast<float>(lr * trust_ratio());
    Floats<N> p = load<V, N>(param + i, n);
    const Floats<N> u = load<V, N>(update + i, n);
#pragma unroll
    for (int j = 0; j < N; j++) p.at[j] = Exact(p.at[j]) * keep - Exact(step) * u.at[j];
    store<V>(param + i, p, n);
    if (out.data) out.write<V>(i, p, n);
  }
};
}  // namespace

int32_t apply_update(zs_call *call) {
  const double *s = call->scalars;
  const bool wide = aligned(call, {APPLY_UPDATE_PARAM, APPLY_UPDATE_OUT, APPLY_UPDATE_UPDATE});
  const ModelCopy out{data<void>(call, APPLY_UPDATE_OUT), dtype_of(call, APPLY_UPDATE_OUT)};
  return by_flag(wide, [&](auto v) {
    const Apply<v.value> body{data<float>(call, APPLY_UPDATE_PARAM), out, data<float>(call, APPLY_UPDATE_UPDATE),
                              data<float>(call, APPLY_UPDATE_PARAM_NORM), data<float>(call, APPLY_UPDATE_UPDATE_NORM),
                              data<float>(call, APPLY_UPDATE_NORM), s[APPLY_UPDATE_LR], s[APPLY_UPDATE_MIN], s[APPLY_UPDATE_MAX],
                              rest(s[APPLY_UPDATE_LR] * s[APPLY_UPDATE_WEIGHT_DECAY])};
    return run_packs<kParameters>(call, count_of(call, APPLY_UPDATE_PARAM), body);
  });
}

}  // namespace zs::cuda
