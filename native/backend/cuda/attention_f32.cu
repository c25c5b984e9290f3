// Attention in f32, forward and backward, with plain products (tensor cores would round to 10 bits): for tests, for
// small models, for a reference on the card. A block of 128 threads takes 32 rows, four lanes to a row, against tiles
// of 16 or 32 rows of the other side in shared memory.
#include "device/attention.h"

namespace zs::cuda {
namespace {

constexpr int kRows = 32, kLanes = 4, kBlockThreads = kRows * kLanes;

// D: the head's size, padded; Cols: rows of the other side in a tile. One float more per row against bank conflicts.
template <int D> constexpr int kRow = D + 1;
template <int D, int Rows> __device__ inline void load_rows(float *tile, const float *from, int64_t step, int64_t count, int d) {
  for (int i = static_cast<int>(threadIdx.x); i < Rows * D; i += kBlockThreads) {
    const int r = i / D, c = i % D;
    tile[r * kRow<D> + c] = r < count && c < d ? from[r * step + c] : 0;
  }
}
template <int D> __device__ inline float dot(const float *x, const float *y) {
  float total = 0;
#pragma unroll 8
  for (int c = 0; c < D; c++) total += x[c] * y[c];
  return total;
}
__device__ inline int my_row() { return static_cast<int>(threadIdx.x) / kLanes; }
__device__ inline int my_lane() { return static_cast<int>(threadIdx.x) % kLanes; }

struct ForwardTensors { float *o, *lse; const float *q, *k, *v; };

template <int D, int Cols> __global__ void __launch_bounds__(kBlockThreads) forward_f32(const Attention a, const ForwardTensors x) {
  float *const queries = dynamic_shared<float>(), *const keys = queries + kRows * kRow<D>, *const values = keys + Cols * kRow<D>;
  float *const weights = values + Cols * kRow<D>;  // (rows, Cols)
  const int64_t batch = blockIdx.z, head = blockIdx.y, kv = head / (a.hq / a.hkv), first = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t query = first + my_row(), seen = query < a.tq ? a.seen(query) : 0;
  const int64_t last = first + kRows < a.tq ? first + kRows - 1 : a.tq - 1, end = a.seen(last);
  const int d = static_cast<int>(a.d);
  load_rows<D, kRows>(queries, x.q + a.start(a.q, batch, first, head), a.q.row, a.tq - first, d);
  float sums[D / kLanes] = {}, top = -INFINITY, total = 0;
  const int64_t to = query < a.tq ? a.dense(batch, query, head) : 0;
  if (a.continues && query < a.tq) {
    top = x.lse[a.line(batch, query, head)];
    if (top != -INFINITY) {
      total = my_lane() == 0 ? 1 : 0;
#pragma unroll
      for (int i = 0; i < D / kLanes; i++) sums[i] = i * kLanes + my_lane() < d ? x.o[to + i * kLanes + my_lane()] : 0;
    }
  }
  for (int64_t key = 0; key < end; key += Cols) {
    __syncthreads();
    load_rows<D, Cols>(keys, x.k + a.start(a.k, batch, key, kv), a.k.row, a.tk - key, d);
    load_rows<D, Cols>(values, x.v + a.start(a.v, batch, key, kv), a.v.row, a.tk - key, d);
    __syncthreads();
    float s[Cols / kLanes], high = top;
#pragma unroll
    for (int i = 0; i < Cols / kLanes; i++) {
      const int c = i * kLanes + my_lane();
      s[i] = key + c < seen ? dot<D>(queries + my_row() * kRow<D>, keys + c * kRow<D>) * a.scale : -INFINITY;
      high = fmaxf(high, s[i]);
    }
    high = warp_reduce(high, Max{}, kLanes);
    const float shift = high == -INFINITY ? 0 : high, fade = expf(top - shift);
    top = high;
    total *= fade;
#pragma unroll
    for (int i = 0; i < D / kLanes; i++) sums[i] *= fade;
#pragma unroll
    for (int i = 0; i < Cols / kLanes; i++) {
      const int c = i * kLanes + my_lane();
      float p = expf(s[i] - shift);
      total += p;
      if (a.drops && key + c < seen) p = kept(a.draws, a.index(batch, head, query) + static_cast<uint64_t>(key + c)) ? p * a.draws.scale : 0;
      weights[my_row() * Cols + c] = p;
    }
    __syncwarp();
    for (int c = 0; c < Cols; c++) {
      const float p = weights[my_row() * Cols + c];
#pragma unroll
      for (int i = 0; i < D / kLanes; i++) sums[i] += p * values[c * kRow<D> + i * kLanes + my_lane()];
    }
  }
  total = warp_reduce(total, Sum{}, kLanes);
  if (query >= a.tq) return;
  const float factor = total > 0 || total != total ? 1 / total : 0;
#pragma unroll
  for (int i = 0; i < D / kLanes; i++)
    if (i * kLanes + my_lane() < d) x.o[to + i * kLanes + my_lane()] = sums[i] * factor;
  if (my_lane() == 0) x.lse[a.line(batch, query, head)] = top + logf(total);
}

struct BackwardTensors { float *dq, *dk, *dv; const float *grad, *q, *k, *v, *lse, *delta; };

// The weight of a query and a key (0 where it is not seen), what dropout makes of it, and the score's gradient.
struct Slope { float weight, slope; };
__device__ inline Slope slope_of(const Attention &a, const BackwardTensors &x, int64_t batch, int64_t head, int64_t query, int64_t key,
                                 float score, float dp) {
  if (query >= a.tq || key >= a.seen(query)) return {0, 0};
  const float p = expf(score * a.scale - x.lse[a.line(batch, query, head)]);
  float factor = 1;
  if (a.drops) factor = kept(a.draws, a.index(batch, head, query) + static_cast<uint64_t>(key)) ? a.draws.scale : 0;
  return {p * factor, p * (dp * factor - x.delta[(batch * a.hq + head) * a.tq + query]) * a.scale};
}

__device__ inline void put(float *to, float x, bool adds) { *to = adds ? *to + x : x; }

template <int D, int Cols> __global__ void __launch_bounds__(kBlockThreads) queries_f32(const Attention a, const BackwardTensors x) {
  float *const queries = dynamic_shared<float>(), *const grads = queries + kRows * kRow<D>, *const keys = grads + kRows * kRow<D>;
  float *const values = keys + Cols * kRow<D>, *const slopes = values + Cols * kRow<D>;
  const int64_t batch = blockIdx.z, head = blockIdx.y, kv = head / (a.hq / a.hkv), first = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t query = first + my_row(), last = first + kRows < a.tq ? first + kRows - 1 : a.tq - 1, end = a.seen(last);
  const int d = static_cast<int>(a.d);
  load_rows<D, kRows>(queries, x.q + a.start(a.q, batch, first, head), a.q.row, a.tq - first, d);
  load_rows<D, kRows>(grads, x.grad + a.dense(batch, first, head), a.hq * a.d, a.tq - first, d);
  float sums[D / kLanes] = {};
  for (int64_t key = 0; key < end; key += Cols) {
    __syncthreads();
    load_rows<D, Cols>(keys, x.k + a.start(a.k, batch, key, kv), a.k.row, a.tk - key, d);
    load_rows<D, Cols>(values, x.v + a.start(a.v, batch, key, kv), a.v.row, a.tk - key, d);
    __syncthreads();
    for (int c = my_lane(); c < Cols; c += kLanes) {
      const float score = dot<D>(queries + my_row() * kRow<D>, keys + c * kRow<D>);
      const float dp = dot<D>(grads + my_row() * kRow<D>, values + c * kRow<D>);
      slopes[my_row() * Cols + c] = slope_of(a, x, batch, head, query, key + c, score, dp).slope;
    }
    __syncwarp();
    for (int c = 0; c < Cols; c++) {
      const float ds = slopes[my_row() * Cols + c];
#pragma unroll
      for (int i = 0; i < D / kLanes; i++) sums[i] += ds * keys[c * kRow<D> + i * kLanes + my_lane()];
    }
  }
  if (query >= a.tq) return;
  float *to = x.dq + a.start(a.q, batch, query, head);
#pragma unroll
  for (int i = 0; i < D / kLanes; i++)
    if (i * kLanes + my_lane() < d) put(to + i * kLanes + my_lane(), sums[i], a.continues);
}

// Above 128 elements a block does one half of dk's and dv's.
template <int D, int Cols> __global__ void __launch_bounds__(kBlockThreads) keys_f32(const Attention a, const BackwardTensors x) {
  constexpr int part = D > 128 ? 128 : D, parts = D / part;
  float *const keys = dynamic_shared<float>(), *const values = keys + kRows * kRow<D>, *const queries = values + kRows * kRow<D>;
  float *const grads = queries + Cols * kRow<D>, *const slopes = grads + Cols * kRow<D>, *const weights = slopes + kRows * Cols;
  const int64_t batch = blockIdx.z, kv = blockIdx.y / parts, group = a.hq / a.hkv, first = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t key = first + my_row(), sees = a.causal && first > a.position ? first - a.position : 0;
  const int column = static_cast<int>(blockIdx.y) % parts * part, d = static_cast<int>(a.d);
  load_rows<D, kRows>(keys, x.k + a.start(a.k, batch, first, kv), a.k.row, a.tk - first, d);
  load_rows<D, kRows>(values, x.v + a.start(a.v, batch, first, kv), a.v.row, a.tk - first, d);
  float dk[part / kLanes] = {}, dv[part / kLanes] = {};
  for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
    for (int64_t query = sees; query < a.tq; query += Cols) {
      __syncthreads();
      load_rows<D, Cols>(queries, x.q + a.start(a.q, batch, query, head), a.q.row, a.tq - query, d);
      load_rows<D, Cols>(grads, x.grad + a.dense(batch, query, head), a.hq * a.d, a.tq - query, d);
      __syncthreads();
      for (int c = my_lane(); c < Cols; c += kLanes) {
        const float score = dot<D>(keys + my_row() * kRow<D>, queries + c * kRow<D>);
        const float dp = dot<D>(values + my_row() * kRow<D>, grads + c * kRow<D>);
        const Slope s = slope_of(a, x, batch, head, query + c, key, score, dp);
        slopes[my_row() * Cols + c] = s.slope, weights[my_row() * Cols + c] = s.weight;
      }
      __syncwarp();
      for (int c = 0; c < Cols; c++) {
        const float ds = slopes[my_row() * Cols + c], p = weights[my_row() * Cols + c];
#pragma unroll
        for (int i = 0; i < part / kLanes; i++) {
          const int at = c * kRow<D> + column + i * kLanes + my_lane();
          dk[i] += ds * queries[at];
          dv[i] += p * grads[at];
        }
      }
    }
  }
  if (key >= a.tk) return;
  float *to_k = x.dk + a.start(a.k, batch, key, kv), *to_v = x.dv + a.start(a.v, batch, key, kv);
#pragma unroll
  for (int i = 0; i < part / kLanes; i++) {
    const int c = column + i * kLanes + my_lane();
    if (c < d) put(to_k + c, dk[i], a.continues), put(to_v + c, dv[i], a.continues);
  }
}

template <int D, int Cols> int32_t forward(zs_call *call, const Attention &a, const ForwardTensors &x) {
  const size_t shared = (kRows * kRow<D> + 2 * Cols * kRow<D> + kRows * Cols) * sizeof(float);
  const dim3 grid(static_cast<unsigned>(ceil_div(a.tq, kRows)), static_cast<unsigned>(a.hq), static_cast<unsigned>(a.b));
  return launch(call, forward_f32<D, Cols>, grid, kBlockThreads, shared, a, x);
}

template <int D, int Cols> int32_t backward(zs_call *call, const Attention &a, const BackwardTensors &x) {
  const size_t shared = (2 * kRows * kRow<D> + 2 * Cols * kRow<D> + 2 * kRows * Cols) * sizeof(float);
  const dim3 queries(static_cast<unsigned>(ceil_div(a.tq, kRows)), static_cast<unsigned>(a.hq), static_cast<unsigned>(a.b));
  const dim3 keys(static_cast<unsigned>(ceil_div(a.tk, kRows)), static_cast<unsigned>(a.hkv * (D > 128 ? 2 : 1)), static_cast<unsigned>(a.b));
  if (a.tq > 0) {
    if (const int32_t bad = launch(call, queries_f32<D, Cols>, queries, kBlockThreads, shared, a, x)) return bad;
  }
  return launch(call, keys_f32<D, Cols>, keys, kBlockThreads, shared, a, x);
}

}  // namespace

int32_t attention_forward_f32(zs_call *call, const Attention &a) {
  const ForwardTensors x{data<float>(call, ATTENTION_O), data<float>(call, ATTENTION_LSE), data<float>(call, ATTENTION_Q),
                         data<float>(call, ATTENTION_K), data<float>(call, ATTENTION_V)};
  if (a.d <= 64) return forward<64, 32>(call, a, x);
  if (a.d <= 128) return forward<128, 32>(call, a, x);
  return forward<256, 16>(call, a, x);
}

int32_t attention_backward_f32(zs_call *call, const Attention &a) {
  float *delta = scratch<float>(call, std::max<int64_t>(1, a.b * a.hq * a.tq));
  if (!delta) return ZS_NO_MEMORY;
  if (const int32_t bad = attention_delta<float>(call, a, delta)) return bad;
  const BackwardTensors x{data<float>(call, ATTENTION_DQ), data<float>(call, ATTENTION_DK), data<float>(call, ATTENTION_DV),
                          data<float>(call, ATTENTION_BACKWARD_DO), data<float>(call, ATTENTION_BACKWARD_Q),
                          data<float>(call, ATTENTION_BACKWARD_K), data<float>(call, ATTENTION_BACKWARD_V),
                          data<float>(call, ATTENTION_BACKWARD_LSE), delta};
  if (a.d <= 64) return backward<64, 32>(call, a, x);
  if (a.d <= 128) return backward<128, 32>(call, a, x);
  return backward<256, 8>(call, a, x);
}

}  // namespace zs::cuda
