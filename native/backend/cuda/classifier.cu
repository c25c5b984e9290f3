// classifier: cross entropy with its gradient written over the logits. A block per row: one pass for maximum and sum,
// one backwards that writes, so that what was read last is still in the caches: a row of 50,000 16-bit logits is
// 100 KB, those of all blocks fit into the L2 of an A100 and newer. Bad targets are told of on the device.
#include "device/softmax.h"

namespace zs::cuda {
namespace {

template <class T> struct Classifier {
  T *logits;
  float *losses, *lse;
  const int32_t *targets;
  Report *report;
  int64_t rows, stride, ignore;
  int v;
  bool gradient;
  float scale;
};

template <class T, bool V> __global__ void __launch_bounds__(512) classifier_kernel(const Classifier<T> f) {
  constexpr int N = kPack<T>;
  __shared__ float buffer[32];
  const RowWalk<T, V, 0> walk{static_cast<int>(f.stride)};
  for (int64_t r = blockIdx.x; r < f.rows; r += gridDim.x) {
    T *x = f.logits + r * f.stride;
    const int32_t target = f.targets[r];
    const bool ignored = target == f.ignore, wrong = !ignored && (target < 0 || target >= f.v);
    const float at_target = ignored || wrong ? 0 : to_float(x[target]);
    const Top top = row_top<T, V>(x, f.v, buffer);  // its barriers lie between reading the target's logit and writing
    const float lse = top.top + logf(top.total);
    if (threadIdx.x == 0) {
      if (wrong) tell(f.report, ZS_OP_classifier, target, f.v);
      f.losses[r] = ignored || wrong ? 0 : lse - at_target;
      if (f.lse) f.lse[r] = lse;
    }
    if (!f.gradient) continue;
    __syncthreads();
    const float factor = ignored || wrong ? 0 : f.scale / top.total;
    for (int p = walk.steps() - 1; p >= 0; p--) {
      const int c = walk.column(p);
      Floats<N> d = load<V, N>(x + c, f.v - c);
#pragma unroll
      for (int j = 0; j < N; j++) {
        d.at[j] = c + j < f.v ? expf(d.at[j] - top.top) * factor : 0;
        if (!ignored && c + j == target) d.at[j] -= f.scale;
      }
      store<V>(x + c, d, walk.left(p));
    }
  }
}

}  // namespace

int32_t classifier(zs_call *call) {
  const int64_t rows = integer(call, CLASSIFIER_ROWS), v = integer(call, CLASSIFIER_V), stride = integer(call, CLASSIFIER_STRIDE);
  if (rows == 0) return ZS_OK;
  return by_float(call, dtype_of(call, CLASSIFIER_LOGITS), [&]<class T>(T) {
    const Classifier<T> f{data<T>(call, CLASSIFIER_LOGITS), data<float>(call, CLASSIFIER_LOSSES), data<float>(call, CLASSIFIER_LSE),
                          data<int32_t>(call, CLASSIFIER_TARGETS), context_of(call)->report, rows, stride,
                          integer(call, CLASSIFIER_IGNORE_INDEX), static_cast<int>(v), integer(call, CLASSIFIER_WRITE_GRADIENT) != 0,
                          real(call, CLASSIFIER_SCALE)};
    return by_flag(aligned(call, {CLASSIFIER_LOGITS}) && stride % kPack<T> == 0, [&](auto wide) {
      const int threads = row_threads<T>(stride);
      return launch(call, classifier_kernel<T, wide.value>, resident(call, rows, threads), threads, 0, f);
    });
  });
}

}  // namespace zs::cuda
