// layer_norm_backward, rms_norm_backward: blocks walk over rows; a row's x and dy are read once. Each thread keeps the
// weight's and bias's gradients of its columns in registers over all rows of its block; one more kernel adds the
// blocks' parts in a fixed order. No atomics: the bits depend on the number of blocks (the card), not on timing.
#include "../../ops/norm.h"
#include "device/rows.h"

namespace zs::cuda {
namespace {

template <class T> struct Backward {
  T *dx;
  float *parts;  // (blocks, 2, cols): sums of each block for weight and bias; absent where neither is wanted
  const T *dy, *x, *weight, *dresidual;
  const float *mean, *rstd;
  int64_t rows;
  int cols;
};

constexpr int kMostThreads = 512;

template <class T, bool V, int Packs, bool Layer>
__global__ void __launch_bounds__(kMostThreads, 1) backward_kernel(const Backward<T> f) {
  using Walk = RowWalk<T, V, Packs>;
  constexpr int N = Walk::N;
  __shared__ float2 buffer[32];
  const Walk walk{f.cols};
  const float count = static_cast<float>(f.cols);
  float *dweight = f.parts ? f.parts + static_cast<int64_t>(blockIdx.x) * 2 * f.cols : nullptr;
  float *dbias = f.parts ? dweight + f.cols : nullptr;
  Floats<N> dw[Walk::kept] = {}, db[Walk::kept] = {};
  for (int64_t r = blockIdx.x; r < f.rows; r += gridDim.x) {
    const int64_t at = r * f.cols;
    const float mean = Layer ? f.mean[r] : 0, rstd = f.rstd[r];
    Floats<N> slopes[Walk::kept], normals[Walk::kept];
    float dot = 0, total = 0;
    // One pack: slope = dy * weight, normal = (x - mean) * rstd; `first`: also what goes into dweight and dbias.
    const auto pack = [&](int p, Floats<N> &slope, Floats<N> &normal, Floats<N> &w_sum, Floats<N> &b_sum) {
      const int c = walk.column(p), n = walk.left(p);
      slope = load<V, N>(f.dy + at + c, n), normal = load<V, N>(f.x + at + c, n);
#pragma unroll
      for (int j = 0; j < N; j++) {
        normal.at[j] = (normal.at[j] - mean) * rstd;
        w_sum.at[j] += slope.at[j] * normal.at[j];
        if (Layer) b_sum.at[j] += slope.at[j];
      }
      if (f.weight) {
        const Floats<N> w = load<V, N>(f.weight + c, n);
#pragma unroll
        for (int j = 0; j < N; j++) slope.at[j] *= w.at[j];
      }
    };
#pragma unroll
    for (int p = 0; p < walk.steps(); p++) {
      const int at_p = Packs > 0 ? p : 0, c = walk.column(p), n = walk.left(p);
      if (Packs == 0 && dweight && r != blockIdx.x) {  // long rows: the sums live in memory
        dw[0] = load<false, N>(dweight + c, n);
        if (Layer) db[0] = load<false, N>(dbias + c, n);
      } else if (Packs == 0) {
        dw[0] = db[0] = {};
      }
      pack(p, slopes[at_p], normals[at_p], dw[at_p], db[at_p]);
      if (Packs == 0 && dweight) {
        store<false>(dweight + c, dw[0], n);
        if (Layer) store<false>(dbias + c, db[0], n);
      }
#pragma unroll
      for (int j = 0; j < N; j++) {
        dot += slopes[at_p].at[j] * normals[at_p].at[j];
        total += slopes[at_p].at[j];
      }
    }
    const float2 sums = block_sum(dot, total, buffer);
    const float mean_dot = sums.x / count, mean_total = Layer ? sums.y / count : 0;
#pragma unroll
    for (int p = 0; p < walk.steps(); p++) {
      const int at_p = Packs > 0 ? p : 0, c = walk.column(p), n = walk.left(p);
      Floats<N> unused_w{}, unused_b{};
      if (Packs == 0) pack(p, slopes[0], normals[0], unused_w, unused_b);
      Floats<N> d{};
      if (f.dresidual) d = load<V, N>(f.dresidual + at + c, n);
#pragma unroll
      for (int j = 0; j < N; j++) d.at[j] += (slopes[at_p].at[j] - mean_total - normals[at_p].at[j] * mean_dot) * rstd;
      store<V>(f.dx + at + c, d, n);
    }
  }
  if constexpr (Packs > 0) {
    if (!dweight) return;
#pragma unroll
    for (int p = 0; p < Packs; p++) {
      store<V>(dweight + walk.column(p), dw[p], walk.left(p));
      if (Layer) store<V>(dbias + walk.column(p), db[p], walk.left(p));
    }
  }
}

// dweight and dbias += their parts: a block takes 32 columns, its warps take turns over the parts.
__global__ void __launch_bounds__(1024) parts_kernel(float *dweight, float *dbias, const float *parts, int blocks, int cols) {
  __shared__ float sums[32][33];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int c = static_cast<int>(blockIdx.x) * 32 + lane;
  float *to = blockIdx.y == 0 ? dweight : dbias;
  if (!to) return;
  float total = 0;
  if (c < cols)
    for (int b = warp; b < blocks; b += 32) total += parts[(static_cast<int64_t>(b) * 2 + blockIdx.y) * cols + c];
  sums[warp][lane] = total;
  __syncthreads();
  const float all = warp_reduce(sums[lane][warp], Sum{});
  const int mine = static_cast<int>(blockIdx.x) * 32 + warp;
  if (lane == 0 && mine < cols) to[mine] += all;
}

template <class T, bool Layer> int32_t run(zs_call *call, Backward<T> f, float *dweight, float *dbias, bool wide) {
  if (f.rows == 0) return ZS_OK;
  const RowShape shape = row_shape(f.cols, kPack<T>, 16 / kPack<T>, kMostThreads);  // 16 columns of each thread
  const unsigned blocks = resident(call, f.rows, 2 * shape.threads);
  if (dweight || dbias) {
    f.parts = scratch<float>(call, static_cast<int64_t>(blocks) * 2 * f.cols);
    if (!f.parts) return ZS_NO_MEMORY;
  }
  const int32_t bad = by_walk(wide && f.cols % kPack<T> == 0, shape.packs, [&](auto v, auto packs) {
    if constexpr (packs.value * kPack<T> > 16) return int32_t{ZS_UNSUPPORTED};
    else return launch(call, backward_kernel<T, v.value, packs.value, Layer>, blocks, shape.threads, 0, f);
  });
  if (bad || !f.parts) return bad;
  const dim3 grid(static_cast<unsigned>(ceil_div(f.cols, 32)), 2);
  return launch(call, parts_kernel, grid, 1024, 0, dweight, dbias, f.parts, static_cast<int>(blocks), f.cols);
}

}  // namespace

int32_t layer_norm_backward(zs_call *call) {
  const bool wide = aligned(call, {LAYER_NORM_DX, LAYER_NORM_BACKWARD_DY, LAYER_NORM_BACKWARD_X, LAYER_NORM_BACKWARD_WEIGHT,
                                   LAYER_NORM_BACKWARD_DRESIDUAL});
  return by_float(call, dtype_of(call, LAYER_NORM_BACKWARD_X), [&]<class T>(T) {
    const Backward<T> f{data<T>(call, LAYER_NORM_DX), nullptr, data<T>(call, LAYER_NORM_BACKWARD_DY),
                        data<T>(call, LAYER_NORM_BACKWARD_X), data<T>(call, LAYER_NORM_BACKWARD_WEIGHT),
                        data<T>(call, LAYER_NORM_BACKWARD_DRESIDUAL), data<float>(call, LAYER_NORM_BACKWARD_MEAN),
                        data<float>(call, LAYER_NORM_BACKWARD_RSTD), integer(call, NORM_ROWS), static_cast<int>(integer(call, NORM_COLS))};
    return run<T, true>(call, f, data<float>(call, LAYER_NORM_DWEIGHT), data<float>(call, LAYER_NORM_DBIAS), wide);
  });
}

int32_t rms_norm_backward(zs_call *call) {
  const bool wide = aligned(call, {RMS_NORM_DX, RMS_NORM_BACKWARD_DY, RMS_NORM_BACKWARD_X, RMS_NORM_BACKWARD_WEIGHT,
                                   RMS_NORM_BACKWARD_DRESIDUAL});
  return by_float(call, dtype_of(call, RMS_NORM_BACKWARD_X), [&]<class T>(T) {
    const Backward<T> f{data<T>(call, RMS_NORM_DX), nullptr, data<T>(call, RMS_NORM_BACKWARD_DY), data<T>(call, RMS_NORM_BACKWARD_X),
                        data<T>(call, RMS_NORM_BACKWARD_WEIGHT), data<T>(call, RMS_NORM_BACKWARD_DRESIDUAL), nullptr,
                        data<float>(call, RMS_NORM_BACKWARD_RSTD), integer(call, NORM_ROWS), static_cast<int>(integer(call, NORM_COLS))};
    return run<T, false>(call, f, data<float>(call, RMS_NORM_DWEIGHT), nullptr, wide);
  });
}

}  // namespace zs::cuda
