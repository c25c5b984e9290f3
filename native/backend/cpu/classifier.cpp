// classifier: cross entropy with its gradient written over the logits, one row at a time.
#include <cmath>

#include "../../ops/softmax.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {
namespace {
template <class T> void row(T *x, int64_t v, int64_t stride, int32_t target, bool ignored, bool gradient, float scale,
                            float &loss, float *lse_out, std::vector<float> &h) {
  h.resize(static_cast<size_t>(v));
  widen(h.data(), x, v);
  const RowKernels &kernels = row_kernels();
  const float top = kernels.maximum(h.data(), v), at = ignored ? 0 : h[target];
  const float total = kernels.exp_sum(h.data(), v, 1, top), lse = top + std::log(total);
  loss = ignored ? 0 : lse - at;
  if (lse_out) *lse_out = lse;
  if (!gradient) return;
  const float factor = ignored ? 0 : scale / total;
  for (int64_t i = 0; i < v; i++) h[i] *= factor;
  if (!ignored) h[target] -= scale;
  narrow(x, h.data(), v);
  for (int64_t i = v; i < stride; i++) x[i] = from_float<T>(0);
}
}  // namespace

int32_t classifier(zs_call *call) {
  const int64_t rows = integer(call, CLASSIFIER_ROWS), v = integer(call, CLASSIFIER_V), stride = integer(call, CLASSIFIER_STRIDE);
  const int64_t ignore = integer(call, CLASSIFIER_IGNORE_INDEX);
  const bool gradient = integer(call, CLASSIFIER_WRITE_GRADIENT) != 0;
  const float scale = static_cast<float>(call->scalars[CLASSIFIER_SCALE]);
  const int32_t *targets = data<int32_t>(call, CLASSIFIER_TARGETS);
  for (int64_t r = 0; r < rows; r++) {
    if (targets[r] != ignore && (targets[r] < 0 || targets[r] >= v)) {
      return fail(call, ZS_BAD_ARGUMENT, "target %d of row %ld is outside the vocabulary of %ld", targets[r], (long)r, (long)v);
    }
  }
  float *losses = data<float>(call, CLASSIFIER_LOSSES), *lse = data<float>(call, CLASSIFIER_LSE);
  return by_float(call, dtype_of(call, CLASSIFIER_LOGITS), [&]<class T>(T) {
    T *logits = data<T>(call, CLASSIFIER_LOGITS);
    parallel_for(call, rows, row_grain(v), [&](int64_t begin, int64_t end) {
      std::vector<float> h;
      for (int64_t r = begin; r < end; r++) {
        row(logits + r * stride, v, stride, targets[r], targets[r] == ignore, gradient, scale, losses[r], lse ? lse + r : nullptr, h);
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
