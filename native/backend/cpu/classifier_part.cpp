// classifier_part, classifier_merge: cross entropy where the vocabulary's columns are cut over ranks. Each tells three
// numbers per row; from those of all, each writes the gradient of its own columns.
#include <cmath>

#include "../../ops/softmax.h"
#include "floats.h"
#include "rows.h"

namespace zs::cpu {
namespace {
constexpr int64_t kStats = 3;  // maximum, sum of exponentials, target's logit

template <class T> void part_row(float *stats, const T *x, int64_t v, int64_t target, std::vector<float> &h) {
  h.resize(static_cast<size_t>(v));
  widen(h.data(), x, v);
  const RowKernels &kernels = row_kernels();
  stats[0] = kernels.maximum(h.data(), v);
  stats[2] = target >= 0 && target < v ? h[static_cast<size_t>(target)] : -INFINITY;
  stats[1] = v > 0 ? kernels.exp_sum(h.data(), v, 1, stats[0]) : 0;
}

struct Merged {
  float top, total, target;
};
Merged merge(const float *stats, int64_t parts, int64_t stride) {
  float top = -INFINITY, target = -INFINITY, total = 0;
  for (int64_t p = 0; p < parts; p++) {
    top = std::fmax(top, stats[p * stride]);
    target = std::fmax(target, stats[p * stride + 2]);
  }
  for (int64_t p = 0; p < parts; p++) {
    const float sum = stats[p * stride + 1];
    if (sum != 0) total += sum * std::exp(stats[p * stride] - top);  // an empty part has sum 0 and maximum -inf
  }
  return {top, total, target};
}

template <class T>
void gradient_row(T *x, int64_t v, int64_t target, bool ignored, const Merged &all, float scale, std::vector<float> &h) {
  h.resize(static_cast<size_t>(v));
  widen(h.data(), x, v);
  if (v > 0) row_kernels().exp_sum(h.data(), v, 1, all.top);
  const float factor = ignored ? 0 : scale / all.total;
  for (int64_t i = 0; i < v; i++) h[static_cast<size_t>(i)] *= factor;
  if (!ignored && target >= 0 && target < v) h[static_cast<size_t>(target)] -= scale;
  narrow(x, h.data(), v);
}
}  // namespace

int32_t classifier_part(zs_call *call) {
  const int64_t rows = integer(call, CLASSIFIER_PART_ROWS), v = integer(call, CLASSIFIER_PART_V);
  const int64_t ignore = integer(call, CLASSIFIER_PART_IGNORE_INDEX), start = integer(call, CLASSIFIER_PART_VOCAB_START);
  const int64_t full = integer(call, CLASSIFIER_PART_VOCAB_FULL);
  const int32_t *targets = data<int32_t>(call, CLASSIFIER_PART_TARGETS);
  for (int64_t r = 0; r < rows; r++) {
    if (targets[r] != ignore && (targets[r] < 0 || targets[r] >= full)) {
      return fail(call, ZS_BAD_ARGUMENT, "target %d of row %ld is outside the vocabulary of %ld", targets[r], (long)r, (long)full);
    }
  }
  float *stats = data<float>(call, CLASSIFIER_PART_STATS);
  return by_float(call, dtype_of(call, CLASSIFIER_PART_LOGITS), [&]<class T>(T) {
    const T *logits = data<T>(call, CLASSIFIER_PART_LOGITS);
    parallel_for(call, rows, row_grain(v), [&](int64_t begin, int64_t end) {
      std::vector<float> h;
      for (int64_t r = begin; r < end; r++) {
        part_row(stats + r * kStats, logits + r * v, v, targets[r] == ignore ? -1 : targets[r] - start, h);
      }
    });
    return int32_t{ZS_OK};
  });
}

int32_t classifier_merge(zs_call *call) {
  const int64_t rows = integer(call, CLASSIFIER_MERGE_ROWS), v = integer(call, CLASSIFIER_MERGE_V);
  const int64_t ignore = integer(call, CLASSIFIER_MERGE_IGNORE_INDEX), start = integer(call, CLASSIFIER_MERGE_VOCAB_START);
  const int64_t parts = integer(call, CLASSIFIER_MERGE_PARTS);
  const bool gradient = integer(call, CLASSIFIER_MERGE_WRITE_GRADIENT) != 0;
  const float scale = static_cast<float>(call->scalars[CLASSIFIER_MERGE_SCALE]);
  const int32_t *targets = data<int32_t>(call, CLASSIFIER_MERGE_TARGETS);
  const float *stats = data<float>(call, CLASSIFIER_MERGE_STATS);
  float *losses = data<float>(call, CLASSIFIER_MERGE_LOSSES);
  return by_float(call, dtype_of(call, CLASSIFIER_MERGE_LOGITS), [&]<class T>(T) {
    T *logits = data<T>(call, CLASSIFIER_MERGE_LOGITS);
    parallel_for(call, rows, row_grain(v), [&](int64_t begin, int64_t end) {
      std::vector<float> h;
      for (int64_t r = begin; r < end; r++) {
        const bool ignored = targets[r] == ignore;
        const Merged all = merge(stats + r * kStats, parts, rows * kStats);
        losses[r] = ignored ? 0 : all.top + std::log(all.total) - all.target;
        if (gradient) gradient_row(logits + r * v, v, targets[r] - start, ignored, all, scale, h);
      }
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
