// What the attention kernels share: the call's numbers, tiles in shared memory, dropout's draws in the layout of
// mma's results.
#pragma once
#include "../../../ops/attention.h"
#include "../attention_cudnn.h"
#include "launch.h"
#include "mma.h"
#include "philox.h"
#include "reduce.h"

namespace zs::cuda {

struct Strides { int64_t offset, row, batch; };

struct Attention {
  int64_t b, tq, tk, hq, hkv, d, position;
  float scale;
  bool causal, continues, drops;
  Strides q, k, v;
  Draws draws;
  uint64_t sample, head, heads_full, query, key, t_full;
  int64_t o_first, o_t;

  __device__ int64_t start(const Strides &s, int64_t batch, int64_t t, int64_t head) const {
    return s.offset + batch * s.batch + t * s.row + head * d;
  }
  // Where query t of a head lies in o and do, and in lse.
  __device__ int64_t dense(int64_t batch, int64_t t, int64_t head) const { return ((batch * o_t + o_first + t) * hq + head) * d; }
  __device__ int64_t line(int64_t batch, int64_t t, int64_t head) const { return (batch * hq + head) * o_t + o_first + t; }
  // How many keys query t sees.
  __device__ int64_t seen(int64_t t) const {
    if (!causal) return tk;
    const int64_t to = t + position + 1;
    return to < 0 ? 0 : to < tk ? to : tk;
  }
  // Number of the element (batch, head, t, key 0) in the whole, for dropout.
  __device__ uint64_t index(int64_t batch, int64_t h, int64_t t) const {
    return (((sample + static_cast<uint64_t>(batch)) * heads_full + head + static_cast<uint64_t>(h)) * t_full + query +
            static_cast<uint64_t>(t)) * t_full + key;
  }
};

Attention attention_of(const zs_call *call);
// Whether rows of d elements from there on may be read by 16 bytes.
bool attention_aligned(const zs_call *call, const Attention &a, std::initializer_list<int> tensors);
// The f32 forms (attention_f32.cu).
int32_t attention_forward_f32(zs_call *call, const Attention &a);
int32_t attention_backward_f32(zs_call *call, const Attention &a);
// delta (b, hq, tq) = sum over d of do * o, for every backward.
template <class T> int32_t attention_delta(zs_call *call, const Attention &a, float *delta);

// 2^x to 22 bits, which is more than the 16-bit operand that it becomes has.
#ifdef ZS_CUDA_SHIM
inline float power_of_two(float x) { return exp2f(x); }
#else
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

// A tile of 16-bit rows in shared memory; 16 bytes of padding keep ldmatrix free of bank conflicts.
template <int D> constexpr int kTileRow = D + 8;

// Rows [0, count) of `rows`, each of d elements `step` apart, zeros beyond; by all threads of the block.
template <int D, int Rows, int Threads, class T>
__device__ inline void load_tile(T *tile, const T *from, int64_t step, int count, int d, bool wide) {
  constexpr int chunks = D / 8;
  if (wide) {
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < Rows * chunks; i += Threads) {
      const int r = i / chunks, c = i % chunks * 8;
      const bool there = r < count && c < d;
      copy_async(tile + r * kTileRow<D> + c, there ? from + r * step + c : from, there);
    }
  } else {
    for (int i = static_cast<int>(threadIdx.x); i < Rows * D; i += Threads) {
      const int r = i / D, c = i % D;
      tile[r * kTileRow<D> + c] = r < count && c < d ? from[r * step + c] : T{};
    }
  }
}

// Operands from a tile; r0, c0: the corner of 16 x 16 elements.
// a: rows are m, columns k.
template <int D, class T> __device__ inline Fragment operand_a(const T *tile, int r0, int c0) {
  const int lane = static_cast<int>(threadIdx.x) % 32, i = lane / 8, r = lane % 8;
  return load_matrices(tile + (r0 + (i & 1) * 8 + r) * kTileRow<D> + c0 + (i >> 1) * 8);
}
// b for two tiles of n: at[0], at[1] of n 0 to 7, at[2], at[3] of n 8 to 15. Rows are n, columns k ...
template <int D, class T> __device__ inline Fragment operand_b(const T *tile, int r0, int c0) {
  const int lane = static_cast<int>(threadIdx.x) % 32, i = lane / 8, r = lane % 8;
  return load_matrices(tile + (r0 + (i >> 1) * 8 + r) * kTileRow<D> + c0 + (i & 1) * 8);
}
// ... or rows are k, columns n.
template <int D, class T> __device__ inline Fragment operand_b_rows_k(const T *tile, int r0, int c0) {
  const int lane = static_cast<int>(threadIdx.x) % 32, i = lane / 8, r = lane % 8;
  return load_transposed(tile + (r0 + (i & 1) * 8 + r) * kTileRow<D> + c0 + (i >> 1) * 8);
}
// Two tiles of results (columns 0 to 7, 8 to 15) as operand a of the next product.
template <class T> __device__ inline Fragment as_operand(const float (&left)[4], const float (&right)[4]) {
  return {{pack_pair<T>(left[0], left[1]), pack_pair<T>(left[2], left[3]), pack_pair<T>(right[0], right[1]),
           pack_pair<T>(right[2], right[3])}};
}

// Whether each of the four elements of block `index` / 4 is kept, as bits.
__device__ inline uint32_t kept_bits(const Draws &draws, uint64_t index) {
  const Words w = philox(draws.seed, index >> 2, draws.site);
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (w.at[i] >> 8 >= draws.threshold) bits |= 1u << i;
  return bits;
}
__device__ inline bool kept(const Draws &draws, uint64_t index) { return kept_bits(draws, index) >> (index & 3) & 1; }

// Which of a tile's four results are kept, rows being queries: `row` and `low` are the indices of (g, k) and
// (g + 8, k), k the tile's first key. Where those are multiples of 4, two lanes share a block of Philox: each draws
// one and tells its bits.
__device__ inline uint32_t kept_by_query(const Draws &draws, uint64_t row, uint64_t low, bool by_four) {
  const unsigned t = threadIdx.x % 4, pair = 2 * t;
  if (by_four) {
    uint32_t bits = kept_bits(draws, (t & 1 ? low : row) + (pair & 4)) << (t & 1) * 4;
    bits |= __shfl_xor_sync(0xffffffffu, bits, 1);
    return (bits >> (pair & 2) & 3) | (bits >> (4 + (pair & 2)) & 3) << 2;
  }
  return (kept(draws, row + pair) ? 1u : 0u) | (kept(draws, row + pair + 1) ? 2u : 0u) | (kept(draws, low + pair) ? 4u : 0u) |
         (kept(draws, low + pair + 1) ? 8u : 0u);
}

// The same where rows are keys: `first` and `second` are the indices of (query 2t, k) and (query 2t + 1, k), k the
// first of the tile's 16 keys. Four lanes whose g differ in the last two bits share four blocks.
__device__ inline uint32_t kept_by_key(const Draws &draws, uint64_t first, uint64_t second, bool by_four) {
  const unsigned g = threadIdx.x % 32 / 4, mine = g & 3;
  if (by_four) {
    uint32_t bits = kept_bits(draws, (mine & 1 ? second : first) + (mine & 2 ? 8 : 0) + (g & 4)) << mine * 4;
    bits |= __shfl_xor_sync(0xffffffffu, bits, 4);
    bits |= __shfl_xor_sync(0xffffffffu, bits, 8);
    bits >>= mine;
    return (bits & 1) | (bits >> 3 & 2) | (bits >> 6 & 4) | (bits >> 9 & 8);
  }
  return (kept(draws, first + g) ? 1u : 0u) | (kept(draws, second + g) ? 2u : 0u) | (kept(draws, first + g + 8) ? 4u : 0u) |
         (kept(draws, second + g + 8) ? 8u : 0u);
}

// Two results beside each other, in the element type or f32, put or (f32 only) added; `left` of them are there.
template <class T> struct Out {
  void *at;
  bool wide;   // f32
  bool adds;
  bool pairs;  // two at once
  __device__ void put(int64_t to, float x, float y, int left) const {
    if (left <= 0) return;
    if (wide) {
      float *p = static_cast<float *>(at) + to;
      if (adds) x += p[0], y += left > 1 ? p[1] : 0;
      p[0] = x;
      if (left > 1) p[1] = y;
    } else if (pairs && left > 1) {
      *reinterpret_cast<uint32_t *>(static_cast<T *>(at) + to) = pack_pair<T>(x, y);
    } else {
      static_cast<T *>(at)[to] = from_float<T>(x);
      if (left > 1) static_cast<T *>(at)[to + 1] = from_float<T>(y);
    }
  }
};
template <class T> Out<T> out_of(const zs_call *call, int index, bool adds, bool pairs) {
  return {call->tensors[index].data, dtype_of(call, index) == ZS_F32, adds, pairs};
}

}  // namespace zs::cuda
