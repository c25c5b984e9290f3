// What softmax and the classifiers share: the maximum of a row and the sum of exponentials above it, in one pass.
#pragma once
#include "../../../ops/softmax.h"
#include "rows.h"

namespace zs::cuda {

// total = sum of e^(x - top). A NaN goes into the total; an empty row has top -inf and total NaN.
struct Top { float top, total; };

template <class T, bool V> __device__ inline Top row_top(const T *x, int cols, float *buffer) {
  using Walk = RowWalk<T, V, 0>;
  constexpr int N = Walk::N;
  const Walk walk{cols};
  float top = -INFINITY, total = 0;
  for (int p = 0; p < walk.steps(); p++) {
    const Floats<N> v = load<V, N>(x + walk.column(p), walk.left(p), -INFINITY);
    float high = top;
#pragma unroll
    for (int j = 0; j < N; j++) high = fmaxf(high, v.at[j]);
    const float shift = high == -INFINITY ? 0 : high;  // nothing finite yet
    if (high > top) total *= expf(top - high);
#pragma unroll
    for (int j = 0; j < N; j++) total += expf(v.at[j] - shift);
    top = high;
  }
  const float all = block_reduce(top, Max{}, buffer);
  return {all, block_reduce(total * expf(top - all), Sum{}, buffer)};
}

// Threads for rows of `cols`.
template <class T> int row_threads(int64_t cols) {
  return static_cast<int>(std::clamp<int64_t>(ceil_div(ceil_div(cols, kPack<T>), 32) * 32, 32, 512));
}

}  // namespace zs::cuda
