// A row spread over a block: thread t takes packs t, t + threads, ... of N elements, kept in registers where a row has
// at most Packs per thread; with Packs 0 (long rows) read again by each pass.
#pragma once
#include "launch.h"
#include "reduce.h"
#include "vector.h"

namespace zs::cuda {

template <class T, bool V, int Packs> struct RowWalk {
  static constexpr int N = kPack<T>, kept = Packs > 0 ? Packs : 1;
  int cols;
  __device__ int steps() const { return Packs > 0 ? Packs : (cols + static_cast<int>(blockDim.x) * N - 1) / (static_cast<int>(blockDim.x) * N); }
  __device__ int column(int p) const { return (p * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N; }
  __device__ int left(int p) const { return cols - column(p); }  // columns from here on; may be negative
};

// Threads and packs per thread for rows of `cols`: blocks stay small while there are registers.
struct RowShape { int threads, packs; };
inline RowShape row_shape(int64_t cols, int pack, int most_packs, int most_threads) {
  const int64_t packs = std::max<int64_t>(1, ceil_div(cols, pack));
  for (int p = 1; p <= most_packs; p *= 2) {
    const int64_t threads = ceil_div(ceil_div(packs, p), 32) * 32;
    if (threads <= kThreads || (p * 2 > most_packs && threads <= most_threads)) return {static_cast<int>(threads), p};
  }
  return {most_threads, 0};
}
// body(std::integral_constant of packs).
template <class Body> int32_t by_packs(int packs, Body body) {
  switch (packs) {
    case 1: return body(std::integral_constant<int, 1>{});
    case 2: return body(std::integral_constant<int, 2>{});
    case 4: return body(std::integral_constant<int, 4>{});
    default: return body(std::integral_constant<int, 0>{});
  }
}

// body(whether rows are read by 16 bytes, packs): rows that are not have no kernels with registers of their own, as they are rare;
// they are read again by each pass, from the caches.
template <class Body> int32_t by_walk(bool wide, int packs, Body body) {
  if (!wide) return body(std::false_type{}, std::integral_constant<int, 0>{});
  return by_packs(packs, [&](auto p) { return body(std::true_type{}, p); });
}

// Two sums at once, for the price of one exchange.
__device__ inline float2 block_sum(float a, float b, float2 *buffer) {
  a = warp_reduce(a, Sum{}), b = warp_reduce(b, Sum{});
  const int warps = static_cast<int>(blockDim.x) / 32;
  if (warps == 1) return make_float2(a, b);
  __syncthreads();
  if (threadIdx.x % 32 == 0) buffer[threadIdx.x / 32] = make_float2(a, b);
  __syncthreads();
  a = b = 0;
  for (int w = 0; w < warps; w++) a += buffer[w].x, b += buffer[w].y;
  return make_float2(a, b);
}

}  // namespace zs::cuda
