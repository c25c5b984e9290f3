// classifier_part, classifier_merge: cross entropy where the vocabulary's columns are cut over ranks. Each tells three
// numbers per row; from those of all, each writes the gradient of its own columns. A block per row.
#include "device/softmax.h"

namespace zs::cuda {
namespace {
constexpr int kStats = 3;  // maximum, sum of exponentials, target's logit

template <class T> struct Part {
  float *stats;
  const T *logits;
  const int32_t *targets;
  Report *report;
  int64_t rows, ignore, start, full;
  int v;
};

template <class T, bool V> __global__ void __launch_bounds__(512) part_kernel(const Part<T> f) {
  __shared__ float buffer[32];
  for (int64_t r = blockIdx.x; r < f.rows; r += gridDim.x) {
    const T *x = f.logits + r * f.v;
    const Top top = row_top<T, V>(x, f.v, buffer);
    if (threadIdx.x != 0) continue;
    const int64_t target = f.targets[r], here = target - f.start;
    const bool ignored = target == f.ignore;
    if (!ignored && (target < 0 || target >= f.full)) tell(f.report, ZS_OP_classifier_part, target, f.full);
    f.stats[r * kStats] = top.top;
    f.stats[r * kStats + 1] = f.v > 0 ? top.total : 0;
    f.stats[r * kStats + 2] = !ignored && here >= 0 && here < f.v ? to_float(x[here]) : -INFINITY;
  }
}

template <class T> struct Merge {
  T *logits;
  float *losses;
  const int32_t *targets;
  const float *stats;  // (parts, rows, 3)
  int64_t rows, ignore, start;
  int v, parts;
  bool gradient;
  float scale;
};

template <class T, bool V> __global__ void __launch_bounds__(512) merge_kernel(const Merge<T> f) {
  constexpr int N = kPack<T>;
  const RowWalk<T, V, 0> walk{f.v};
  for (int64_t r = blockIdx.x; r < f.rows; r += gridDim.x) {
    float top = -INFINITY, at_target = -INFINITY, total = 0;
    for (int p = 0; p < f.parts; p++) {
      const float *stats = f.stats + (p * f.rows + r) * kStats;
      top = fmaxf(top, stats[0]);
      at_target = fmaxf(at_target, stats[2]);
    }
    for (int p = 0; p < f.parts; p++) {
      const float *stats = f.stats + (p * f.rows + r) * kStats;
      if (stats[1] != 0) total += stats[1] * expf(stats[0] - top);  // an empty part has sum 0 and maximum -inf
    }
    const bool ignored = f.targets[r] == f.ignore;
    if (threadIdx.x == 0) f.losses[r] = ignored ? 0 : top + logf(total) - at_target;
    if (!f.gradient) continue;
    const float factor = ignored ? 0 : f.scale / total;
    const int64_t target = ignored ? -1 : f.targets[r] - f.start;
    T *x = f.logits + r * f.v;
    for (int p = 0; p < walk.steps(); p++) {
      const int c = walk.column(p);
      Floats<N> d = load<V, N>(x + c, walk.left(p));
#pragma unroll
      for (int j = 0; j < N; j++) {
        d.at[j] = expf(d.at[j] - top) * factor;
        if (c + j == target) d.at[j] -= f.scale;
      }
      store<V>(x + c, d, walk.left(p));
    }
  }
}

}  // namespace

int32_t classifier_part(zs_call *call) {
  const int64_t rows = integer(call, CLASSIFIER_PART_ROWS), v = integer(call, CLASSIFIER_PART_V);
  if (rows == 0) return ZS_OK;
  return by_float(call, dtype_of(call, CLASSIFIER_PART_LOGITS), [&]<class T>(T) {
    const Part<T> f{data<float>(call, CLASSIFIER_PART_STATS), data<T>(call, CLASSIFIER_PART_LOGITS),
                    data<int32_t>(call, CLASSIFIER_PART_TARGETS), context_of(call)->report, rows,
                    integer(call, CLASSIFIER_PART_IGNORE_INDEX), integer(call, CLASSIFIER_PART_VOCAB_START),
                    integer(call, CLASSIFIER_PART_VOCAB_FULL), static_cast<int>(v)};
    return by_flag(aligned(call, {CLASSIFIER_PART_LOGITS}) && v % kPack<T> == 0, [&](auto wide) {
      const int threads = row_threads<T>(v);
      return launch(call, part_kernel<T, wide.value>, resident(call, rows, threads), threads, 0, f);
    });
  });
}

int32_t classifier_merge(zs_call *call) {
  const int64_t rows = integer(call, CLASSIFIER_MERGE_ROWS), v = integer(call, CLASSIFIER_MERGE_V);
  if (rows == 0) return ZS_OK;
  return by_float(call, dtype_of(call, CLASSIFIER_MERGE_LOGITS), [&]<class T>(T) {
    const Merge<T> f{data<T>(call, CLASSIFIER_MERGE_LOGITS), data<float>(call, CLASSIFIER_MERGE_LOSSES),
                     data<int32_t>(call, CLASSIFIER_MERGE_TARGETS), data<float>(call, CLASSIFIER_MERGE_STATS), rows,
                     integer(call, CLASSIFIER_MERGE_IGNORE_INDEX), integer(call, CLASSIFIER_MERGE_VOCAB_START), static_cast<int>(v),
                     static_cast<int>(integer(call, CLASSIFIER_MERGE_PARTS)), integer(call, CLASSIFIER_MERGE_WRITE_GRADIENT) != 0,
                     real(call, CLASSIFIER_MERGE_SCALE)};
    return by_flag(aligned(call, {CLASSIFIER_MERGE_LOGITS}) && v % kPack<T> == 0, [&](auto wide) {
      const int threads = row_threads<T>(v);
      return launch(call, merge_kernel<T, wide.value>, resident(call, rows, threads), threads, 0, f);
    });
  });
}

}  // namespace zs::cuda
