// attention_forward in bf16 and f16 (Dao, FlashAttention-2, by the paper): a block of 4 warps takes 64 or 128 queries of
// one head and walks over blocks of keys; scores, softmax and the weights' product with v stay in registers, k and v
// come by cp.async into two buffers by turns, one barrier per block of keys. Blocks with most keys start first.
// mma.sync of sm_80 rather than sm_90's wgmma: one kernel for every GPU; where cuDNN is there it is tried first.
#include "device/attention.h"

namespace zs::cuda {
namespace {

constexpr int kWarps = 4, kBlockThreads = 32 * kWarps;
constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

template <class T> struct Tensors {
  const T *q, *k, *v;
  Out<T> o;
  float *lse;
  bool wide, by_four;  // rows may be read by 16 bytes; draws may be shared
};

// D: the head's size, padded; M: tiles of 16 queries per warp; Keys: per block of keys. Queries live in registers
// where Held, else in shared memory.
template <class T, int D, int M, int Keys, bool Held, bool Drops> struct Forward {
  static constexpr int queries = kWarps * 16 * M, row = kTileRow<D>;
  static constexpr size_t tile = static_cast<size_t>(Keys) * row, q_tile = static_cast<size_t>(queries) * row;
  // Held queries pass through the buffers of the keys.
  static constexpr size_t shared = (Held ? (4 * tile > q_tile ? 4 * tile : q_tile) : 4 * tile + q_tile) * sizeof(T);

  const Attention &a;
  const Tensors<T> &x;
  float sums[M][D / 8][4], top[M][2], total[M][2];

  __device__ static int warp() { return static_cast<int>(threadIdx.x) / 32; }
  __device__ static int g() { return static_cast<int>(threadIdx.x) % 32 / 4; }
  __device__ static int t() { return static_cast<int>(threadIdx.x) % 4; }
  // The query of row g + 8 half of tile m, in the block.
  __device__ static int row_of(int m, int half) { return (warp() * M + m) * 16 + half * 8 + g(); }

  // Nothing yet; or, continuing, what is known of other keys: sums with the total 1 at their lse.
  __device__ void begin(int64_t batch, int64_t head, int64_t first) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int64_t query = first + row_of(m, half);
        top[m][half] = a.continues && query < a.tq ? x.lse[a.line(batch, query, head)] * kLog2e : -INFINITY;
        const bool known = top[m][half] != -INFINITY;
        total[m][half] = known && t() == 0 ? 1 : 0;  // the four lanes' totals are added at the end
        const float *o = static_cast<const float *>(x.o.at) + a.dense(batch, query, head);
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
          for (int j = 0; j < 2; j++) sums[m][n][2 * half + j] = known && n * 8 + 2 * t() + j < a.d ? o[n * 8 + 2 * t() + j] : 0;
      }
  }

  __device__ void scores(float (&s)[M][Keys / 8][4], const Fragment (&held)[M][Held ? D / 16 : 1], const T *q, const T *k) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int n = 0; n < Keys / 8; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
      Fragment left[M];
#pragma unroll
      for (int m = 0; m < M; m++) left[m] = Held ? held[m][Held ? c : 0] : operand_a<D>(q, (warp() * M + m) * 16, c * 16);
#pragma unroll
      for (int n = 0; n < Keys / 16; n++) {
        const Fragment right = operand_b<D>(k, n * 16, c * 16);
#pragma unroll
        for (int m = 0; m < M; m++) {
          multiply<T>(s[m][2 * n], left[m], right.at[0], right.at[1]);
          multiply<T>(s[m][2 * n + 1], left[m], right.at[2], right.at[3]);
        }
      }
    }
  }

  // Scores of keys that a query does not see become -inf.
  __device__ void mask(float (&s)[M][Keys / 8][4], int64_t first, int64_t key) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int64_t left = a.seen(first + row_of(m, half)) - key;
        const int seen = left < Keys ? static_cast<int>(left) : Keys;
#pragma unroll
        for (int n = 0; n < Keys / 8; n++)
#pragma unroll
          for (int j = 0; j < 2; j++)
            if (n * 8 + 2 * t() + j >= seen) s[m][n][2 * half + j] = -INFINITY;
      }
  }

  // Scores become e^(score - maximum so far); what was summed before is rescaled.
  __device__ void soften(float (&s)[M][Keys / 8][4]) {
    const float scale = a.scale * kLog2e;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float high = -INFINITY;
#pragma unroll
        for (int n = 0; n < Keys / 8; n++) high = fmaxf(high, fmaxf(s[m][n][2 * half] * scale, s[m][n][2 * half + 1] * scale));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
        high = fmaxf(fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2)), top[m][half]);
        const float shift = high == -INFINITY ? 0 : high, fade = power_of_two(top[m][half] - shift);
        top[m][half] = high;
        total[m][half] *= fade;
#pragma unroll
        for (int n = 0; n < D / 8; n++) sums[m][n][2 * half] *= fade, sums[m][n][2 * half + 1] *= fade;
#pragma unroll
        for (int n = 0; n < Keys / 8; n++)
#pragma unroll
          for (int j = 0; j < 2; j++) {
            s[m][n][2 * half + j] = power_of_two(s[m][n][2 * half + j] * scale - shift);
            total[m][half] += s[m][n][2 * half + j];
          }
      }
  }

  // After the sum: the weights that are kept still share the whole.
  __device__ void drop(float (&s)[M][Keys / 8][4], int64_t batch, int64_t head, int64_t first, int64_t key) {
#pragma unroll
    for (int m = 0; m < M; m++) {
      const uint64_t upper = a.index(batch, head, first + row_of(m, 0)) + static_cast<uint64_t>(key);
      const uint64_t lower = a.index(batch, head, first + row_of(m, 1)) + static_cast<uint64_t>(key);
#pragma unroll
      for (int n = 0; n < Keys / 8; n++) {
        const uint32_t kept = kept_by_query(a.draws, upper + n * 8, lower + n * 8, x.by_four);
#pragma unroll
        for (int j = 0; j < 4; j++) s[m][n][j] = kept >> j & 1 ? s[m][n][j] * a.draws.scale : 0;
      }
    }
  }

  __device__ void add_values(const float (&s)[M][Keys / 8][4], const T *v) {
#pragma unroll
    for (int c = 0; c < Keys / 16; c++) {
      Fragment left[M];
#pragma unroll
      for (int m = 0; m < M; m++) left[m] = as_operand<T>(s[m][2 * c], s[m][2 * c + 1]);
#pragma unroll
      for (int n = 0; n < D / 16; n++) {
        const Fragment right = operand_b_rows_k<D>(v, c * 16, n * 16);
#pragma unroll
        for (int m = 0; m < M; m++) {
          multiply<T>(sums[m][2 * n], left[m], right.at[0], right.at[1]);
          multiply<T>(sums[m][2 * n + 1], left[m], right.at[2], right.at[3]);
        }
      }
    }
  }

  __device__ void finish(int64_t batch, int64_t head, int64_t first) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float all = warp_reduce(total[m][half], Sum{}, 4);
        const int64_t query = first + row_of(m, half);
        if (query >= a.tq) continue;
        const float factor = all > 0 || all != all ? 1 / all : 0;
        const int64_t to = a.dense(batch, query, head);
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
          const int c = n * 8 + 2 * t();
          x.o.put(to + c, sums[m][n][2 * half] * factor, sums[m][n][2 * half + 1] * factor, static_cast<int>(a.d) - c);
        }
        if (t() == 0) x.lse[a.line(batch, query, head)] = top[m][half] * kLn2 + logf(all);
      }
  }

  __device__ void run(int64_t batch, int64_t head, int64_t first) {
    T *const memory = dynamic_shared<T>(), *const q = Held ? memory : memory + 4 * tile;
    const int64_t kv = head / (a.hq / a.hkv);
    const T *k = x.k + a.start(a.k, batch, 0, kv), *v = x.v + a.start(a.v, batch, 0, kv);
    const int d = static_cast<int>(a.d);
    const auto rows = [](int64_t left, int most) { return static_cast<int>(left < most ? left : most); };
    load_tile<D, queries, kBlockThreads>(q, x.q + a.start(a.q, batch, first, head), a.q.row, rows(a.tq - first, queries), d, x.wide);
    commit_copies();
    begin(batch, head, first);
    Fragment held[M][Held ? D / 16 : 1];
    if (Held) {
      wait_copies();
      __syncthreads();
#pragma unroll
      for (int m = 0; m < M; m++)
#pragma unroll
        for (int c = 0; c < D / 16; c++) held[m][Held ? c : 0] = operand_a<D>(q, (warp() * M + m) * 16, c * 16);
      __syncthreads();
    }
    const int64_t last = first + queries < a.tq ? first + queries : a.tq, end = a.seen(last - 1);
    const auto fetch = [&](int64_t key) {
      T *to = memory + (key / Keys & 1) * 2 * tile;
      load_tile<D, Keys, kBlockThreads>(to, k + key * a.k.row, a.k.row, rows(a.tk - key, Keys), d, x.wide);
      load_tile<D, Keys, kBlockThreads>(to + tile, v + key * a.v.row, a.v.row, rows(a.tk - key, Keys), d, x.wide);
      commit_copies();
    };
    if (end > 0) fetch(0);
    for (int64_t key = 0; key < end; key += Keys) {
      wait_copies();
      __syncthreads();  // these keys are there, and everyone is done with those before
      if (key + Keys < end) fetch(key + Keys);
      const T *here = memory + (key / Keys & 1) * 2 * tile;
      float s[M][Keys / 8][4];
      scores(s, held, q, here);
      if (key + Keys > a.seen(first)) mask(s, first, key);
      soften(s);
      if (Drops) drop(s, batch, head, first, key);
      add_values(s, here + tile);
    }
    finish(batch, head, first);
  }
};

template <class F, class T> __global__ void __launch_bounds__(kBlockThreads) forward_kernel(const Attention a, const Tensors<T> x) {
  F forward{a, x, {}, {}, {}};
  forward.run(blockIdx.z, blockIdx.y, static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * F::queries);
}

template <class F, class T> int32_t start(zs_call *call, const Attention &a, const Tensors<T> &x) {
  const dim3 grid(static_cast<unsigned>(ceil_div(a.tq, F::queries)), static_cast<unsigned>(a.hq), static_cast<unsigned>(a.b));
  return launch(call, forward_kernel<F, T>, grid, kBlockThreads, F::shared, a, x);
}

template <class T, bool Drops> int32_t by_size(zs_call *call, const Attention &a, const Tensors<T> &x) {
  if (a.d <= 64) return start<Forward<T, 64, 2, 64, true, Drops>>(call, a, x);
  if (a.d <= 128) return start<Forward<T, 128, 1, 64, true, Drops>>(call, a, x);
  return start<Forward<T, 256, 1, 32, false, Drops>>(call, a, x);
}

}  // namespace

int32_t attention_forward(zs_call *call) {
  const Attention a = attention_of(call);
  if (a.tk == 0 || a.d == 0) return fail(call, ZS_BAD_ARGUMENT, "attention over no keys");
  if (a.d > 256) return fail(call, ZS_UNSUPPORTED, "heads of %ld; on CUDA they have 256 elements at most", static_cast<long>(a.d));
  if (a.tq == 0 || a.b == 0 || a.hq == 0) return ZS_OK;
  bool done = false;
  if (attention_cudnn != nullptr)
    if (const int32_t bad = attention_cudnn(call, false, &done); bad != ZS_OK || done) return bad;
  if (dtype_of(call, ATTENTION_Q) == ZS_F32) return attention_forward_f32(call, a);
  return by_float(call, dtype_of(call, ATTENTION_Q), [&]<class T>(T) {
    if constexpr (std::is_same_v<T, float>) {
      return int32_t{ZS_UNSUPPORTED};
    } else {
      const bool wide = attention_aligned(call, a, {ATTENTION_Q, ATTENTION_K, ATTENTION_V});
      const Tensors<T> x{data<T>(call, ATTENTION_Q), data<T>(call, ATTENTION_K), data<T>(call, ATTENTION_V),
                         out_of<T>(call, ATTENTION_O, false, a.d % 2 == 0 && aligned(call, {ATTENTION_O})), data<float>(call, ATTENTION_LSE),
                         wide, a.t_full % 4 == 0 && a.key % 4 == 0};
      return a.drops ? by_size<T, true>(call, a, x) : by_size<T, false>(call, a, x);
    }
  });
}

}  // namespace zs::cuda
