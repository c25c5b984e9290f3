// softmax and log-softmax over rows, and their backward. A block per row: one pass for maximum and sum, one that writes,
// which finds the row in the caches and starts with what was read last.
#include "device/softmax.h"

namespace zs::cuda {
namespace {

template <class T, bool V>
__global__ void __launch_bounds__(512) softmax_kernel(T *y, const T *x, int64_t rows, int cols, bool log) {
  using Walk = RowWalk<T, V, 0>;
  constexpr int N = Walk::N;
  __shared__ float buffer[32];
  const Walk walk{cols};
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const Top top = row_top<T, V>(x + r * cols, cols, buffer);
    const float shift = top.top + logf(top.total), factor = 1 / top.total;
    for (int p = walk.steps() - 1; p >= 0; p--) {
      const int64_t at = r * cols + walk.column(p);
      Floats<N> v = load<V, N>(x + at, walk.left(p));
#pragma unroll
      for (int j = 0; j < N; j++) v.at[j] = log ? v.at[j] - shift : expf(v.at[j] - top.top) * factor;
      store<V>(y + at, v, walk.left(p));
    }
  }
}

template <class T, bool V>
__global__ void __launch_bounds__(512) softmax_backward_kernel(T *dx, const T *dy, const T *y, int64_t rows, int cols, bool log) {
  using Walk = RowWalk<T, V, 0>;
  constexpr int N = Walk::N;
  __shared__ float buffer[32];
  const Walk walk{cols};
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    float dot = 0;
    for (int p = 0; p < walk.steps(); p++) {
      const int64_t at = r * cols + walk.column(p);
      const Floats<N> d = load<V, N>(dy + at, walk.left(p));
      Floats<N> q{};
      if (!log) q = load<V, N>(y + at, walk.left(p));
#pragma unroll
      for (int j = 0; j < N; j++) dot += log ? d.at[j] : d.at[j] * q.at[j];
    }
    dot = block_reduce(dot, Sum{}, buffer);
    for (int p = walk.steps() - 1; p >= 0; p--) {
      const int64_t at = r * cols + walk.column(p);
      Floats<N> d = load<V, N>(dy + at, walk.left(p));
      const Floats<N> q = load<V, N>(y + at, walk.left(p));
#pragma unroll
      for (int j = 0; j < N; j++) d.at[j] = log ? d.at[j] - expf(q.at[j]) * dot : q.at[j] * (d.at[j] - dot);
      store<V>(dx + at, d, walk.left(p));
    }
  }
}

}  // namespace

int32_t softmax_forward(zs_call *call) {
  const int64_t rows = integer(call, 0), cols = integer(call, 1);
  if (rows == 0 || cols == 0) return ZS_OK;
  return by_float(call, dtype_of(call, SOFTMAX_X), [&]<class T>(T) {
    return by_flag(aligned(call, {SOFTMAX_Y, SOFTMAX_X}) && cols % kPack<T> == 0, [&](auto v) {
      const int threads = row_threads<T>(cols);
      return launch(call, softmax_kernel<T, v.value>, resident(call, rows, threads), threads, 0, data<T>(call, SOFTMAX_Y),
                    data<T>(call, SOFTMAX_X), rows, static_cast<int>(cols), integer(call, 2) != 0);
    });
  });
}

int32_t softmax_backward(zs_call *call) {
  const int64_t rows = integer(call, 0), cols = integer(call, 1);
  if (rows == 0 || cols == 0) return ZS_OK;
  return by_float(call, dtype_of(call, SOFTMAX_BACKWARD_Y), [&]<class T>(T) {
    return by_flag(aligned(call, {SOFTMAX_DX, SOFTMAX_BACKWARD_DY, SOFTMAX_BACKWARD_Y}) && cols % kPack<T> == 0, [&](auto v) {
      const int threads = row_threads<T>(cols);
      return launch(call, softmax_backward_kernel<T, v.value>, resident(call, rows, threads), threads, 0, data<T>(call, SOFTMAX_DX),
                    data<T>(call, SOFTMAX_BACKWARD_DY), data<T>(call, SOFTMAX_BACKWARD_Y), rows, static_cast<int>(cols),
                    integer(call, 2) != 0);
    });
  });
}

}  // namespace zs::cuda
