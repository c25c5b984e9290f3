// attention_backward in bf16 and f16 without atomics, so that its bits never change: one kernel per block of queries for
// dq, one per block of keys (over all queries and all heads that share it) for dk and dv. That costs two products
// more than adding dq up from the keys' blocks (7 for 5), which no order of blocks could make deterministic. The
// second works on transposed scores, so that weights and slopes are the left operand of their products as they are.
#include "device/attention.h"

namespace zs::cuda {
namespace {

constexpr int kWarps = 4, kBlockThreads = 32 * kWarps, kRows = 16 * kWarps;  // rows of a block: 16 per warp
constexpr float kLog2e = 1.44269504088896341f;

template <class T> struct Tensors {
  const T *grad, *q, *k, *v;
  const float *lse, *delta;
  Out<T> dq, dk, dv;
  bool wide, by_four;
};

__device__ inline int warp_row() { return static_cast<int>(threadIdx.x) / 32 * 16; }
__device__ inline int lane_g() { return static_cast<int>(threadIdx.x) % 32 / 4; }
__device__ inline int lane_t() { return static_cast<int>(threadIdx.x) % 4; }
__device__ inline int fewer(int64_t left, int most) { return static_cast<int>(left < most ? left : most); }

// c (16 rows of this warp, Cols) = left * right^T over D; both tiles have rows of D.
template <int D, int Cols, class T> __device__ inline void product(float (&c)[Cols / 8][4], const T *left, const T *right) {
#pragma unroll
  for (int n = 0; n < Cols / 8; n++) c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0;
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    const Fragment a = operand_a<D>(left, warp_row(), k * 16);
#pragma unroll
    for (int n = 0; n < Cols / 16; n++) {
      const Fragment b = operand_b<D>(right, n * 16, k * 16);
      multiply<T>(c[2 * n], a, b.at[0], b.at[1]);
      multiply<T>(c[2 * n + 1], a, b.at[2], b.at[3]);
    }
  }
}
// sums (16 rows, Part columns from `column` on) += c (16 rows, Cols) * right (Cols rows of D).
template <int D, int Cols, int Part, class T>
__device__ inline void add_product(float (&sums)[Part / 8][4], const float (&c)[Cols / 8][4], const T *right, int column) {
#pragma unroll
  for (int k = 0; k < Cols / 16; k++) {
    const Fragment a = as_operand<T>(c[2 * k], c[2 * k + 1]);
#pragma unroll
    for (int n = 0; n < Part / 16; n++) {
      const Fragment b = operand_b_rows_k<D>(right, k * 16, column + n * 16);
      multiply<T>(sums[2 * n], a, b.at[0], b.at[1]);
      multiply<T>(sums[2 * n + 1], a, b.at[2], b.at[3]);
    }
  }
}

// dq of 64 queries of one head.
template <class T, int D, int Keys, bool Drops> struct ForQueries {
  static constexpr size_t held = static_cast<size_t>(kRows) * kTileRow<D>, tile = static_cast<size_t>(Keys) * kTileRow<D>;
  static constexpr size_t shared = (2 * held + 4 * tile) * sizeof(T);

  static __device__ void run(const Attention &a, const Tensors<T> &x) {
    const int64_t batch = blockIdx.z, head = blockIdx.y, kv = head / (a.hq / a.hkv);
    const int64_t first = static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * kRows;
    T *const queries = dynamic_shared<T>(), *const grads = queries + held, *const memory = grads + held;
    const T *k = x.k + a.start(a.k, batch, 0, kv), *v = x.v + a.start(a.v, batch, 0, kv);
    const int d = static_cast<int>(a.d), there = fewer(a.tq - first, kRows);
    const auto fetch = [&](int64_t key) {
      T *to = memory + (key / Keys & 1) * 2 * tile;
      load_tile<D, Keys, kBlockThreads>(to, k + key * a.k.row, a.k.row, fewer(a.tk - key, Keys), d, x.wide);
      load_tile<D, Keys, kBlockThreads>(to + tile, v + key * a.v.row, a.v.row, fewer(a.tk - key, Keys), d, x.wide);
      commit_copies();
    };
    load_tile<D, kRows, kBlockThreads>(queries, x.q + a.start(a.q, batch, first, head), a.q.row, there, d, x.wide);
    load_tile<D, kRows, kBlockThreads>(grads, x.grad + a.dense(batch, first, head), a.hq * a.d, there, d, x.wide);
    commit_copies();
    float sums[D / 8][4] = {}, at[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int64_t query = first + warp_row() + half * 8 + lane_g();
      at[half] = query < a.tq ? x.lse[a.line(batch, query, head)] * kLog2e : INFINITY;  // rows behind the end weigh nothing
      delta[half] = query < a.tq ? x.delta[(batch * a.hq + head) * a.tq + query] : 0;
    }
    const int64_t end = a.seen(first + there - 1);
    if (end > 0) fetch(0);
    for (int64_t key = 0; key < end; key += Keys) {
      wait_copies();
      __syncthreads();
      if (key + Keys < end) fetch(key + Keys);
      const T *here = memory + (key / Keys & 1) * 2 * tile;
      float weights[Keys / 8][4], slopes[Keys / 8][4];
      product<D, Keys>(weights, queries, here);
      product<D, Keys>(slopes, grads, here + tile);
      slope(a, x, weights, slopes, at, delta, batch, head, first, key);
      add_product<D, Keys, D>(sums, slopes, here, 0);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int64_t query = first + warp_row() + half * 8 + lane_g();
      if (query >= a.tq) continue;
      const int64_t to = a.start(a.q, batch, query, head);
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        const int c = n * 8 + 2 * lane_t();
        x.dq.put(to + c, sums[n][2 * half], sums[n][2 * half + 1], d - c);
      }
    }
  }

  // Scores become probabilities, slopes (dP) the gradient of the scores before scaling.
  static __device__ void slope(const Attention &a, const Tensors<T> &x, const float (&s)[Keys / 8][4], float (&ds)[Keys / 8][4],
                               const float (&at)[2], const float (&delta)[2], int64_t batch, int64_t head, int64_t first, int64_t key) {
    const bool edge = key + Keys > a.seen(first);
    const int64_t row = first + warp_row() + lane_g();
    const int64_t seen[2] = {a.seen(row) - key, a.seen(row + 8) - key};
    const uint64_t upper = a.index(batch, head, row) + static_cast<uint64_t>(key), lower = upper + 8 * a.t_full;
    const float scale = a.scale * kLog2e;
#pragma unroll
    for (int n = 0; n < Keys / 8; n++) {
      const uint32_t kept = Drops ? kept_by_query(a.draws, upper + n * 8, lower + n * 8, x.by_four) : 0;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float p = power_of_two(s[n][j] * scale - at[j / 2]);
        if (edge && n * 8 + 2 * lane_t() + j % 2 >= seen[j / 2]) p = 0;
        const float dp = !Drops ? ds[n][j] : kept >> j & 1 ? ds[n][j] * a.draws.scale : 0;
        ds[n][j] = p * (dp - delta[j / 2]) * a.scale;
      }
    }
  }
};

// dk and dv of 64 keys of one head of k and v; where D is above 128, of one half of the head's elements.
template <class T, int D, int Queries, bool Drops> struct ForKeys {
  static constexpr int part = D > 128 ? 128 : D, parts = D / part;
  static constexpr size_t held = static_cast<size_t>(kRows) * kTileRow<D>, tile = static_cast<size_t>(Queries) * kTileRow<D>;
  static constexpr size_t shared = (2 * held + 4 * tile) * sizeof(T);

  // lse and delta of a query lie in the padding of its row: 99 KiB is all that some GPUs have.
  template <class P> static __device__ auto *numbers_of(P *queries, int row) {
    return reinterpret_cast<std::conditional_t<std::is_const_v<P>, const float, float> *>(queries + row * kTileRow<D> + D);
  }

  static __device__ void run(const Attention &a, const Tensors<T> &x) {
    const int64_t batch = blockIdx.z, kv = blockIdx.y / parts, group = a.hq / a.hkv, first = static_cast<int64_t>(blockIdx.x) * kRows;
    const int column = static_cast<int>(blockIdx.y) % parts * part, d = static_cast<int>(a.d);
    T *const keys = dynamic_shared<T>(), *const values = keys + held, *const memory = values + held;
    load_tile<D, kRows, kBlockThreads>(keys, x.k + a.start(a.k, batch, first, kv), a.k.row, fewer(a.tk - first, kRows), d, x.wide);
    load_tile<D, kRows, kBlockThreads>(values, x.v + a.start(a.v, batch, first, kv), a.v.row, fewer(a.tk - first, kRows), d, x.wide);
    commit_copies();
    // The first query that sees one of these keys, at a block's start; then all, head after head.
    const int64_t sees = a.causal && first > a.position ? (first - a.position) / Queries * Queries : 0;
    const int64_t blocks = sees < a.tq ? (a.tq - sees + Queries - 1) / Queries : 0;
    const auto fetch = [&](int64_t i) {
      const int64_t head = kv * group + i / blocks, query = sees + i % blocks * Queries;
      const int there = fewer(a.tq - query, Queries), n = static_cast<int>(threadIdx.x);
      T *to = memory + (i & 1) * 2 * tile;
      load_tile<D, Queries, kBlockThreads>(to, x.q + a.start(a.q, batch, query, head), a.q.row, there, d, x.wide);
      load_tile<D, Queries, kBlockThreads>(to + tile, x.grad + a.dense(batch, query, head), a.hq * a.d, there, d, x.wide);
      commit_copies();
      if (n < Queries) {
        float *numbers = numbers_of(to, n);
        numbers[0] = n < there ? x.lse[a.line(batch, query + n, head)] * kLog2e : INFINITY;
        numbers[1] = n < there ? x.delta[(batch * a.hq + head) * a.tq + query + n] : 0;
      }
    };
    float dk[part / 8][4] = {}, dv[part / 8][4] = {};
    if (blocks > 0) fetch(0);
    for (int64_t i = 0; i < blocks * group; i++) {
      wait_copies();
      __syncthreads();
      if (i + 1 < blocks * group) fetch(i + 1);
      const T *queries = memory + (i & 1) * 2 * tile, *grads = queries + tile;
      float weights[Queries / 8][4], slopes[Queries / 8][4];
      product<D, Queries>(weights, keys, queries);
      product<D, Queries>(slopes, values, grads);
      slope(a, x, weights, slopes, queries, batch, kv * group + i / blocks, sees + i % blocks * Queries, first);
      add_product<D, Queries, part>(dv, weights, grads, column);
      add_product<D, Queries, part>(dk, slopes, queries, column);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int64_t key = first + warp_row() + half * 8 + lane_g();
      if (key >= a.tk) continue;
      const int64_t to_k = a.start(a.k, batch, key, kv), to_v = a.start(a.v, batch, key, kv);
#pragma unroll
      for (int n = 0; n < part / 8; n++) {
        const int c = column + n * 8 + 2 * lane_t();
        x.dk.put(to_k + c, dk[n][2 * half], dk[n][2 * half + 1], d - c);
        x.dv.put(to_v + c, dv[n][2 * half], dv[n][2 * half + 1], d - c);
      }
    }
  }

  // As above with rows and columns exchanged; the weights that dropout kept are needed too.
  static __device__ void slope(const Attention &a, const Tensors<T> &x, float (&s)[Queries / 8][4], float (&ds)[Queries / 8][4],
                               const T *queries, int64_t batch, int64_t head, int64_t query, int64_t first) {
    const bool edge = a.causal && first + kRows > a.seen(query);
    const int64_t key = first + warp_row();
    const float scale = a.scale * kLog2e;
#pragma unroll
    for (int n = 0; n < Queries / 8; n++) {
      const int column = n * 8 + 2 * lane_t();
      uint32_t kept = 0;
      if (Drops) {
        const uint64_t left = a.index(batch, head, query + column) + static_cast<uint64_t>(key);
        kept = kept_by_key(a.draws, left, left + a.t_full, x.by_four);
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float *numbers = numbers_of(queries, column + j % 2);
        float p = power_of_two(s[n][j] * scale - numbers[0]);
        if (edge && key + j / 2 * 8 + lane_g() >= a.seen(query + column + j % 2)) p = 0;
        const float factor = !Drops ? 1 : kept >> j & 1 ? a.draws.scale : 0;
        ds[n][j] = p * ((Drops ? ds[n][j] * factor : ds[n][j]) - numbers[1]) * a.scale;
        s[n][j] = Drops ? p * factor : p;
      }
    }
  }
};

template <class F, class T> __global__ void __launch_bounds__(kBlockThreads) backward_kernel(const Attention a, const Tensors<T> x) {
  F::run(a, x);
}

template <class Q, class K, class T> int32_t start(zs_call *call, const Attention &a, const Tensors<T> &x) {
  const unsigned b = static_cast<unsigned>(a.b);
  const dim3 queries(static_cast<unsigned>(ceil_div(a.tq, kRows)), static_cast<unsigned>(a.hq), b);
  const dim3 keys(static_cast<unsigned>(ceil_div(a.tk, kRows)), static_cast<unsigned>(a.hkv * K::parts), b);
  if (a.tq > 0) {
    if (const int32_t bad = launch(call, backward_kernel<Q, T>, queries, kBlockThreads, Q::shared, a, x)) return bad;
  }
  return launch(call, backward_kernel<K, T>, keys, kBlockThreads, K::shared, a, x);
}

template <class T, bool Drops> int32_t by_size(zs_call *call, const Attention &a, const Tensors<T> &x) {
  if (a.d <= 64) return start<ForQueries<T, 64, 64, Drops>, ForKeys<T, 64, 64, Drops>>(call, a, x);
  if (a.d <= 128) return start<ForQueries<T, 128, 32, Drops>, ForKeys<T, 128, 32, Drops>>(call, a, x);
  return start<ForQueries<T, 256, 16, Drops>, ForKeys<T, 256, 16, Drops>>(call, a, x);
}

}  // namespace

int32_t attention_backward(zs_call *call) {
  const Attention a = attention_of(call);
  if (a.tk == 0 || a.d == 0) return fail(call, ZS_BAD_ARGUMENT, "attention over no keys");
  if (a.d > 256) return fail(call, ZS_UNSUPPORTED, "heads of %ld; on CUDA they have 256 elements at most", static_cast<long>(a.d));
  if (a.b == 0 || a.hq == 0) return ZS_OK;
  bool done = false;
  if (attention_cudnn != nullptr)
    if (const int32_t bad = attention_cudnn(call, true, &done); bad != ZS_OK || done) return bad;
  if (dtype_of(call, ATTENTION_BACKWARD_Q) == ZS_F32) return attention_backward_f32(call, a);
  float *delta = scratch<float>(call, std::max<int64_t>(1, a.b * a.hq * a.tq));
  if (!delta) return ZS_NO_MEMORY;
  return by_float(call, dtype_of(call, ATTENTION_BACKWARD_Q), [&]<class T>(T) {
    if constexpr (std::is_same_v<T, float>) {
      return int32_t{ZS_UNSUPPORTED};
    } else {
      if (const int32_t bad = attention_delta<T>(call, a, delta)) return bad;
      const auto out = [&](int index) {
        const bool even = ((a.q.offset | a.q.row | a.q.batch | a.k.offset | a.k.row | a.k.batch | a.v.offset | a.v.row | a.v.batch | a.d) & 1) == 0;
        return out_of<T>(call, index, a.continues, even && aligned(call, {index}));
      };
      const bool wide = attention_aligned(call, a, {ATTENTION_BACKWARD_DO, ATTENTION_BACKWARD_Q, ATTENTION_BACKWARD_K, ATTENTION_BACKWARD_V});
      const Tensors<T> x{data<T>(call, ATTENTION_BACKWARD_DO), data<T>(call, ATTENTION_BACKWARD_Q), data<T>(call, ATTENTION_BACKWARD_K),
                         data<T>(call, ATTENTION_BACKWARD_V), data<float>(call, ATTENTION_BACKWARD_LSE), delta, out(ATTENTION_DQ),
                         out(ATTENTION_DK), out(ATTENTION_DV), wide, a.t_full % 4 == 0 && a.key % 4 == 0};
      return a.drops ? by_size<T, true>(call, a, x) : by_size<T, false>(call, a, x);
    }
  });
}

}  // namespace zs::cuda
