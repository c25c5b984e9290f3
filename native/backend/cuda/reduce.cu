// reduce: sum, max or min over the middle of (outer, n, inner). inner 1: a block per row; else a block takes columns
// and its warps take turns over n. Where that makes few blocks, n is cut into parts whose results, in scratch, are
// reduced by a second launch. How it is cut depends on the shape alone, so the bits do too.
#include "../../ops/layout.h"
#include "device/launch.h"
#include "device/reduce.h"
#include "device/vector.h"

namespace zs::cuda {
namespace {

constexpr int64_t kEnoughBlocks = 1024;

__device__ inline float start_of(int kind) { return kind == REDUCE_SUM ? 0.0f : kind == REDUCE_MAX ? -INFINITY : INFINITY; }
__device__ inline float join(int kind, float a, float b) { return kind == REDUCE_SUM ? a + b : kind == REDUCE_MAX ? fmaxf(a, b) : fminf(a, b); }
struct Join {
  int kind;
  __device__ float operator()(float a, float b) const { return join(kind, a, b); }
};

template <class X, class Y> struct Reduce {
  Y *y;
  const X *x;
  int64_t outer, n, inner, part;  // part: how much of n a block takes
  int64_t parts;                  // result p of part p goes to y + p * outer * inner
  int kind;
  bool accumulate;
  float scale;
  __device__ void put(int64_t at, float total) const {
    y[at] = from_float<Y>(total * scale + (accumulate ? to_float(y[at]) : 0));
  }
};

template <class X, class Y, bool V> __global__ void __launch_bounds__(kThreads) rows_kernel(const Reduce<X, Y> f) {
  constexpr int N = kPack<X>;
  __shared__ float buffer[32];
  for (int64_t b = blockIdx.x; b < f.outer * f.parts; b += gridDim.x) {
    const int64_t o = b / f.parts, p = b - o * f.parts, from = p * f.part, end = from + f.part < f.n ? from + f.part : f.n;
    float total = start_of(f.kind);
    for (int64_t i = from + static_cast<int64_t>(threadIdx.x) * N; i < end; i += static_cast<int64_t>(blockDim.x) * N) {
      const int left = end - i < N ? static_cast<int>(end - i) : N;
      const Floats<N> v = load<V, N>(f.x + o * f.n + i, left, start_of(f.kind));
      float sum = v.at[0];
#pragma unroll
      for (int j = 1; j < N; j++) sum = join(f.kind, sum, v.at[j]);
      total = join(f.kind, total, sum);
    }
    total = block_reduce(total, Join{f.kind}, buffer);
    if (threadIdx.x == 0) f.put(p * f.outer + o, total);
  }
}

// grid: (columns by 32 packs, outer, parts) in turns.
template <class X, class Y, bool V> __global__ void __launch_bounds__(kThreads) columns_kernel(const Reduce<X, Y> f, int64_t pieces) {
  constexpr int N = 4, warps = kThreads / 32;
  __shared__ float sums[warps][32 * N + 1];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int64_t b = blockIdx.x; b < pieces * f.outer * f.parts; b += gridDim.x) {
    const int64_t piece = b % pieces, o = b / pieces % f.outer, p = b / pieces / f.outer;
    const int64_t c = (piece * 32 + lane) * N, from = p * f.part, end = from + f.part < f.n ? from + f.part : f.n;
    const int left = f.inner - c < N ? static_cast<int>(f.inner - c) : N;
    Floats<N> total;
#pragma unroll
    for (int j = 0; j < N; j++) total.at[j] = start_of(f.kind);
    if (left > 0) {
#pragma unroll 4
      for (int64_t i = from + warp; i < end; i += warps) {
        const Floats<N> v = load<V, N>(f.x + (o * f.n + i) * f.inner + c, left);
#pragma unroll
        for (int j = 0; j < N; j++) total.at[j] = join(f.kind, total.at[j], v.at[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < N; j++) sums[warp][lane * N + j] = total.at[j];
    __syncthreads();
    const int64_t column = piece * 32 * N + threadIdx.x;
    if (threadIdx.x < 32 * N && column < f.inner) {
      float all = start_of(f.kind);
      for (int w = 0; w < warps; w++) all = join(f.kind, all, sums[w][threadIdx.x]);
      f.put((p * f.outer + o) * f.inner + column, all);
    }
    __syncthreads();
  }
}

template <class X, class Y> int32_t start(zs_call *call, const Reduce<X, Y> &f) {
  const bool wide = reinterpret_cast<uintptr_t>(f.x) % 16 == 0;
  if (f.inner == 1) {
    return by_flag(wide && f.n % kPack<X> == 0 && f.part % kPack<X> == 0, [&](auto v) {
      const int threads = static_cast<int>(std::clamp<int64_t>(ceil_div(ceil_div(f.part, kPack<X>), 32) * 32, 32, kThreads));
      return launch(call, rows_kernel<X, Y, v.value>, resident(call, f.outer * f.parts, threads), threads, 0, f);
    });
  }
  return by_flag(wide && f.inner % kPack<X> == 0, [&](auto v) {
    const int64_t pieces = ceil_div(f.inner, 128);
    return launch(call, columns_kernel<X, Y, v.value>, resident(call, pieces * f.outer * f.parts), kThreads, 0, f, pieces);
  });
}

template <class X, class Y> int32_t run(zs_call *call) {
  Reduce<X, Y> f{data<Y>(call, REDUCE_Y), data<X>(call, REDUCE_X), integer(call, REDUCE_OUTER), integer(call, REDUCE_N),
                 integer(call, REDUCE_INNER), 0, 1, static_cast<int>(integer(call, REDUCE_KIND)),
                 integer(call, REDUCE_ACCUMULATE) != 0, real(call, REDUCE_SCALE)};
  if (f.outer == 0 || f.inner == 0) return ZS_OK;
  f.part = std::max<int64_t>(1, f.n);
  // A part is worth a block's start: 16 thousand elements of a row, 128 lines of columns.
  const int64_t blocks = f.outer * ceil_div(f.inner, 128), least = f.inner == 1 ? 16384 : 128;
  const int64_t parts = std::min(ceil_div(kEnoughBlocks, blocks), f.n / least);
  if (parts <= 1) return start(call, f);
  const int64_t part = ceil_div(ceil_div(f.n, parts), 8) * 8, used = ceil_div(f.n, part);
  float *partial = scratch<float>(call, used * f.outer * f.inner);
  if (!partial) return ZS_NO_MEMORY;
  const int32_t bad = start<X, float>(call, {partial, f.x, f.outer, f.n, f.inner, part, used, f.kind, false, 1});
  if (bad) return bad;
  // The parts are now the n of a matrix.
  return start<float, Y>(call, {f.y, partial, 1, used, f.outer * f.inner, used, 1, f.kind, f.accumulate, f.scale});
}

}  // namespace

int32_t reduce(zs_call *call) {
  return by_float(call, dtype_of(call, REDUCE_Y), [&]<class Y>(Y) {
    if (count_of(call, REDUCE_X) == 0) return run<Y, Y>(call);
    return by_float(call, dtype_of(call, REDUCE_X), [&]<class X>(X) { return run<X, Y>(call); });
  });
}

}  // namespace zs::cuda
