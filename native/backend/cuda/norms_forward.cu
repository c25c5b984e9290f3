// layer_norm_forward, rms_norm_forward with the fused residual: each row is read once, held in registers for mean and
// variance (in two passes over them, as on the CPU: no cancellation), and written once. Blocks walk over rows. Rows
// beyond 512 threads' registers are read again from the caches.
#include "../../ops/norm.h"
#include "device/rows.h"

namespace zs::cuda {
namespace {

constexpr int kMostThreads = 512;

template <class T> struct Forward {
  T *y, *sum;
  float *mean, *rstd;
  const T *x, *residual, *weight, *bias;
  int64_t rows;
  int cols;
  float eps;
};

template <class T, bool V, int Packs, bool Layer>
__global__ void __launch_bounds__(kMostThreads) forward_kernel(const Forward<T> f) {
  using Walk = RowWalk<T, V, Packs>;
  constexpr int N = Walk::N;
  __shared__ float buffer[32];
  const Walk walk{f.cols};
  const float count = static_cast<float>(f.cols);
  for (int64_t r = blockIdx.x; r < f.rows; r += gridDim.x) {
    const int64_t at = r * f.cols;
    const T *source = f.residual ? f.sum + at : f.x + at;
    Floats<N> row[Walk::kept];
    float total = 0;
#pragma unroll
    for (int p = 0; p < walk.steps(); p++) {
      const int c = walk.column(p), n = walk.left(p);
      Floats<N> v = load<V, N>(f.x + at + c, n);
      if (f.residual) {
        const Floats<N> more = load<V, N>(f.residual + at + c, n);
#pragma unroll
        for (int j = 0; j < N; j++) v.at[j] = to_float(from_float<T>(v.at[j] + more.at[j]));  // the sum as stored
        store<V>(f.sum + at + c, v, n);
      }
#pragma unroll
      for (int j = 0; j < N; j++) total += v.at[j];
      if (Packs > 0) row[p] = v;
    }
    const float mean = Layer ? block_reduce(total, Sum{}, buffer) / count : 0;
    float squares = 0;
#pragma unroll
    for (int p = 0; p < walk.steps(); p++) {
      const int n = walk.left(p);
      const Floats<N> v = Packs > 0 ? row[Packs > 0 ? p : 0] : load<V, N>(source + walk.column(p), n);
#pragma unroll
      for (int j = 0; j < N; j++) squares += j < n ? (v.at[j] - mean) * (v.at[j] - mean) : 0;
    }
    const float rstd = 1 / sqrtf(block_reduce(squares, Sum{}, buffer) / count + f.eps);
    if (threadIdx.x == 0) {
      if (Layer) f.mean[r] = mean;
      f.rstd[r] = rstd;
    }
#pragma unroll
    for (int p = 0; p < walk.steps(); p++) {
      const int c = walk.column(p), n = walk.left(p);
      Floats<N> v = Packs > 0 ? row[Packs > 0 ? p : 0] : load<V, N>(source + c, n);
#pragma unroll
      for (int j = 0; j < N; j++) v.at[j] = (v.at[j] - mean) * rstd;
      if (f.weight) {
        const Floats<N> w = load<V, N>(f.weight + c, n);
#pragma unroll
        for (int j = 0; j < N; j++) v.at[j] *= w.at[j];
      }
      if (Layer && f.bias) {
        const Floats<N> b = load<V, N>(f.bias + c, n);
#pragma unroll
        for (int j = 0; j < N; j++) v.at[j] += b.at[j];
      }
      store<V>(f.y + at + c, v, n);
    }
  }
}

template <class T, bool Layer> int32_t run(zs_call *call, const Forward<T> &f, bool wide) {
  if (f.rows == 0) return ZS_OK;
  const RowShape shape = row_shape(f.cols, kPack<T>, 4, kMostThreads);
  return by_walk(wide && f.cols % kPack<T> == 0, shape.packs, [&](auto v, auto packs) {
    return launch(call, forward_kernel<T, v.value, packs.value, Layer>, resident(call, f.rows, shape.threads), shape.threads, 0, f);
  });
}

}  // namespace

int32_t layer_norm_forward(zs_call *call) {
  const bool wide = aligned(call, {LAYER_NORM_Y, LAYER_NORM_SUM, LAYER_NORM_X, LAYER_NORM_WEIGHT, LAYER_NORM_BIAS, LAYER_NORM_RESIDUAL});
  return by_float(call, dtype_of(call, LAYER_NORM_X), [&]<class T>(T) {
    return run<T, true>(call, {data<T>(call, LAYER_NORM_Y), data<T>(call, LAYER_NORM_SUM), data<float>(call, LAYER_NORM_MEAN),
                               data<float>(call, LAYER_NORM_RSTD), data<T>(call, LAYER_NORM_X), data<T>(call, LAYER_NORM_RESIDUAL),
                               data<T>(call, LAYER_NORM_WEIGHT), data<T>(call, LAYER_NORM_BIAS), integer(call, NORM_ROWS),
                               static_cast<int>(integer(call, NORM_COLS)), real(call, NORM_EPS)}, wide);
  });
}

int32_t rms_norm_forward(zs_call *call) {
  const bool wide = aligned(call, {RMS_NORM_Y, RMS_NORM_SUM, RMS_NORM_X, RMS_NORM_WEIGHT, RMS_NORM_RESIDUAL});
  return by_float(call, dtype_of(call, RMS_NORM_X), [&]<class T>(T) {
    return run<T, false>(call, {data<T>(call, RMS_NORM_Y), data<T>(call, RMS_NORM_SUM), nullptr, data<float>(call, RMS_NORM_RSTD),
                                data<T>(call, RMS_NORM_X), data<T>(call, RMS_NORM_RESIDUAL), data<T>(call, RMS_NORM_WEIGHT), nullptr,
                                integer(call, NORM_ROWS), static_cast<int>(integer(call, NORM_COLS)), real(call, NORM_EPS)}, wide);
  });
}

}  // namespace zs::cuda
