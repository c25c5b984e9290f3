// What every form of attention reads off its call, and the sums of do * o that every backward needs.
#include "device/attention.h"
#include "device/vector.h"

namespace zs::cuda {
namespace {
Strides strides_of(const zs_call *call, int first) { return {integer(call, first), integer(call, first + 1), integer(call, first + 2)}; }
uint64_t natural(const zs_call *call, int index) { return static_cast<uint64_t>(integer(call, index)); }

// A warp per query and head.
template <class T> __global__ void __launch_bounds__(kThreads) delta_kernel(float *delta, const T *grad, const T *o, const Attention a) {
  const int64_t rows = a.b * a.hq * a.tq, step = static_cast<int64_t>(gridDim.x) * (kThreads / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  // In the order of o, so that warps beside each other read heads beside each other.
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32; i < rows; i += step) {
    const int64_t head = i % a.hq, t = i / a.hq % a.tq, batch = i / a.hq / a.tq, at = a.dense(batch, t, head);
    float total = 0;
    for (int64_t c = lane; c < a.d; c += 32) total += to_float(grad[at + c]) * to_float(o[at + c]);
    total = warp_reduce(total, Sum{});
    if (lane == 0) delta[(batch * a.hq + head) * a.tq + t] = total;
  }
}
}  // namespace

Attention attention_of(const zs_call *call) {
  Attention a{};
  a.b = integer(call, ATTENTION_B), a.tq = integer(call, ATTENTION_TQ), a.tk = integer(call, ATTENTION_TK);
  a.hq = integer(call, ATTENTION_HQ), a.hkv = integer(call, ATTENTION_HKV), a.d = integer(call, ATTENTION_D);
  a.position = integer(call, ATTENTION_Q_POSITION), a.scale = real(call, ATTENTION_SCALE);
  a.causal = integer(call, ATTENTION_CAUSAL) != 0, a.continues = integer(call, ATTENTION_CONTINUE) != 0;
  a.drops = call->scalars[ATTENTION_P] > 0;
  a.q = strides_of(call, ATTENTION_Q_OFFSET), a.k = strides_of(call, ATTENTION_K_OFFSET), a.v = strides_of(call, ATTENTION_V_OFFSET);
  a.draws = draws_of(real(call, ATTENTION_P), natural(call, ATTENTION_SEED), natural(call, ATTENTION_SITE));
  a.sample = natural(call, ATTENTION_SAMPLE), a.head = natural(call, ATTENTION_HEAD);
  a.heads_full = natural(call, ATTENTION_HEADS_FULL), a.query = natural(call, ATTENTION_QUERY);
  a.key = natural(call, ATTENTION_KEY), a.t_full = natural(call, ATTENTION_T_FULL);
  a.o_first = integer(call, ATTENTION_O_FIRST), a.o_t = integer(call, ATTENTION_O_T);
  return a;
}

bool attention_aligned(const zs_call *call, const Attention &a, std::initializer_list<int> tensors) {
  const int64_t all = a.q.offset | a.q.row | a.q.batch | a.k.offset | a.k.row | a.k.batch | a.v.offset | a.v.row | a.v.batch | a.d;
  return all % 8 == 0 && aligned(call, tensors);
}

template <class T> int32_t attention_delta(zs_call *call, const Attention &a, float *delta) {
  const unsigned blocks = resident(call, ceil_div(a.b * a.hq * a.tq, kThreads / 32));
  return launch(call, delta_kernel<T>, blocks, kThreads, 0, delta, data<T>(call, ATTENTION_BACKWARD_DO),
                data<T>(call, ATTENTION_BACKWARD_O), a);
}
template int32_t attention_delta<float>(zs_call *, const Attention &, float *);
template int32_t attention_delta<bf16>(zs_call *, const Attention &, float *);
template int32_t attention_delta<f16>(zs_call *, const Attention &, float *);

}  // namespace zs::cuda
