// Attention in blocks of 64 queries by 64 keys, forward and backward: the products run on GEMM's packed panels,
// scores live only as one block (Dao et al., FlashAttention-2, without the GPU's part). A block of queries, or in
// backward a head of keys, is one task, summed in a fixed order whatever the number of threads.
#include <algorithm>
#include <cmath>

#include "../../ops/attention.h"
#include "floats.h"
#include "gemm.h"
#include "rows.h"

namespace zs::cpu {
namespace {
constexpr int64_t kBlock = 64;

struct Layout { int64_t offset, row, batch; };

struct Shape {
  int64_t b, tq, tk, hq, hkv, d, position;
  float scale;
  bool causal;
  Layout q, k, v;
  bool drops;
  Draws draws;
  uint64_t sample, first_head, heads_full, query, first_key, t_full;
  bool continues;
  int64_t o_first, o_t;

  explicit Shape(const zs_call *call)
      : b(integer(call, ATTENTION_B)), tq(integer(call, ATTENTION_TQ)), tk(integer(call, ATTENTION_TK)),
        hq(integer(call, ATTENTION_HQ)), hkv(integer(call, ATTENTION_HKV)), d(integer(call, ATTENTION_D)),
        position(integer(call, ATTENTION_Q_POSITION)), scale(static_cast<float>(call->scalars[ATTENTION_SCALE])),
        causal(integer(call, ATTENTION_CAUSAL) != 0),
        q(at(call, ATTENTION_Q_OFFSET)), k(at(call, ATTENTION_K_OFFSET)), v(at(call, ATTENTION_V_OFFSET)),
        drops(call->scalars[ATTENTION_P] > 0),
        draws(draws_of(static_cast<float>(call->scalars[ATTENTION_P]), natural(call, ATTENTION_SEED), natural(call, ATTENTION_SITE))),
        sample(natural(call, ATTENTION_SAMPLE)), first_head(natural(call, ATTENTION_HEAD)),
        heads_full(natural(call, ATTENTION_HEADS_FULL)), query(natural(call, ATTENTION_QUERY)),
        first_key(natural(call, ATTENTION_KEY)), t_full(natural(call, ATTENTION_T_FULL)),
        continues(integer(call, ATTENTION_CONTINUE) != 0), o_first(integer(call, ATTENTION_O_FIRST)),
        o_t(integer(call, ATTENTION_O_T)) {}

  static uint64_t natural(const zs_call *call, int index) { return static_cast<uint64_t>(integer(call, index)); }

  static Layout at(const zs_call *call, int first) {
    return {integer(call, first), integer(call, first + 1), integer(call, first + 2)};
  }
  int64_t start(const Layout &l, int64_t batch, int64_t t, int64_t head) const {
    return l.offset + batch * l.batch + t * l.row + head * d;
  }
  // Where query t of a head lies in o and do, and in lse.
  int64_t dense(int64_t batch, int64_t t, int64_t head) const { return ((batch * o_t + o_first + t) * hq + head) * d; }
  int64_t line(int64_t batch, int64_t t, int64_t head) const { return (batch * hq + head) * o_t + o_first + t; }
  // Number of the element (batch, head, t, key) in the whole, for dropout.
  uint64_t index(int64_t batch, int64_t head, int64_t t, int64_t key) const {
    const auto n = [](int64_t value) { return static_cast<uint64_t>(value); };
    return (((sample + n(batch)) * heads_full + first_head + n(head)) * t_full + query + n(t)) * t_full + first_key + n(key);
  }
  // How many keys query t sees.
  int64_t seen(int64_t t) const { return causal ? std::min(tk, std::max(int64_t{0}, t + position + 1)) : tk; }
};

// A result in the element type or in f32.
template <class T> struct Target {
  void *at;
  bool wide;

  Target(const zs_call *call, int index)
      : at(call->tensors[index].data), wide(dtype_of(call, index) == ZS_F32) {}
  void put(int64_t to, const float *x, int64_t n) const {
    if (wide) std::copy(x, x + n, static_cast<float *>(at) + to);
    else narrow(static_cast<T *>(at) + to, x, n);
  }
  // Only f32 is ever added to.
  void add(int64_t to, const float *x, int64_t n) const {
    float *y = static_cast<float *>(at) + to;
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
  }
  void put_or_add(bool adds, int64_t to, const float *x, int64_t n) const { adds ? add(to, x, n) : put(to, x, n); }
};

// Small products on packed panels. An operand is packed once per block and used several times.
class Panels {
 public:
  explicit Panels(int dtype) : kernels_(gemm_kernels(dtype, false)) {}
  int64_t width(int64_t n) const { return (n + kernels_->nr - 1) / kernels_->nr * kernels_->nr; }

  // Element (j, k) at source + j * row + k, or + k * row + j where k is not contiguous; j < count.
  template <class T>
  void pack(std::vector<float> &to, const T *source, int64_t row, bool contiguous, int64_t count, int64_t depth, bool left) const {
    const int64_t side = left ? kernels_->mr : kernels_->nr, panels = (count + side - 1) / side;
    to.resize(static_cast<size_t>(panels * side * depth + 16));
    for (int64_t p = 0; p < panels; p++) {
      const T *from = source + p * side * (contiguous ? row : 1);
      kernels_->pack(from, row, contiguous, static_cast<int>(std::min(side, count - p * side)), depth,
                     static_cast<int>(side), to.data() + p * side * depth);
    }
  }
  // c (m, width(n)) (+)= a b.
  void multiply(const std::vector<float> &a, const std::vector<float> &b, int64_t m, int64_t n, int64_t depth, float *c,
                int64_t c_row, bool add) const {
    for (int64_t j = 0; j < n; j += kernels_->nr)
      for (int64_t i = 0; i < m; i += kernels_->mr) {
        kernels_->tile(static_cast<int>(std::min<int64_t>(kernels_->mr, m - i)), depth, a.data() + i * depth,
                       b.data() + j * depth, c + i * c_row + j, c_row, add);
      }
  }

 private:
  const GemmKernels *kernels_;
};

using Buffer = std::vector<float>;
inline void reset(Buffer &buffer, int64_t count) { buffer.assign(static_cast<size_t>(count), 0.0f); }

template <class T> struct Forward {
  const zs_call *call;
  const Shape &s;
  Panels typed, plain;
  const RowKernels &rows = row_kernels();
  const T *q, *k, *v;
  Target<T> o;
  float *lse;
  Buffer qp{}, kp{}, vp{}, pp{}, scores{}, sums{}, top{}, total{};

  void block(int64_t batch, int64_t head, int64_t first) {
    const int64_t m = std::min(kBlock, s.tq - first), kv = head / (s.hq / s.hkv), dw = plain.width(s.d);
    typed.pack(qp, q + s.start(s.q, batch, first, head), s.q.row, true, m, s.d, true);
    reset(scores, kBlock * kBlock);
    reset(sums, m * dw);
    top.assign(static_cast<size_t>(m), -INFINITY);
    total.assign(static_cast<size_t>(m), 0.0f);
    if (s.continues) resume(batch, head, first, m, dw);
    const int64_t end = s.seen(first + m - 1);
    for (int64_t key = 0; key < end; key += kBlock) {
      const int64_t n = std::min(kBlock, end - key);
      typed.pack(kp, k + s.start(s.k, batch, key, kv), s.k.row, true, n, s.d, false);
      typed.multiply(qp, kp, m, n, s.d, scores.data(), kBlock, false);
      for (int64_t i = 0; i < m; i++) {
        const int64_t seen = std::clamp(s.seen(first + i) - key, int64_t{0}, n);
        soften(i, seen, n, dw);
        if (s.drops) drop(i, seen, s.index(batch, head, first + i, key));
      }
      plain.pack(pp, scores.data(), kBlock, true, m, n, true);
      typed.pack(vp, v + s.start(s.v, batch, key, kv), s.v.row, false, s.d, n, false);
      plain.multiply(pp, vp, m, s.d, n, sums.data(), dw, true);
    }
    for (int64_t i = 0; i < m; i++) {
      const float factor = total[i] > 0 || total[i] != total[i] ? 1 / total[i] : 0;
      float *sum = sums.data() + i * dw;
      for (int64_t c = 0; c < s.d; c++) sum[c] *= factor;
      o.put(s.dense(batch, first + i, head), sum, s.d);
      lse[s.line(batch, first + i, head)] = top[i] + std::log(total[i]);
    }
  }

  // What is known of other keys: sums with the total 1 at their lse.
  void resume(int64_t batch, int64_t head, int64_t first, int64_t m, int64_t dw) {
    for (int64_t i = 0; i < m; i++) {
      top[i] = lse[s.line(batch, first + i, head)];
      if (top[i] == -INFINITY) continue;
      total[i] = 1;
      const float *known = static_cast<const float *>(o.at) + s.dense(batch, first + i, head);
      std::copy(known, known + s.d, sums.data() + i * dw);
    }
  }

  // Scores of a row become e^(score - maximum so far); what was summed before is rescaled.
  void soften(int64_t i, int64_t seen, int64_t n, int64_t dw) {
    float *row = scores.data() + i * kBlock;
    std::fill(row + seen, row + n, 0.0f);
    if (seen == 0) return;
    const float high = std::max(top[i], rows.maximum(row, seen) * s.scale);
    const float fade = std::exp(top[i] - high);
    total[i] = total[i] * fade + rows.exp_sum(row, seen, s.scale, high);
    if (fade != 1) for (int64_t c = 0; c < dw; c++) sums[i * dw + c] *= fade;
    top[i] = high;
  }

  // Dropout, after the sum: the weights that are kept still share the whole.
  void drop(int64_t i, int64_t seen, uint64_t index) {
    float mask[kBlock], *row = scores.data() + i * kBlock;
    rows.kept(mask, seen, s.draws, index);
    for (int64_t j = 0; j < seen; j++) row[j] *= mask[j];
  }
};

template <class T> struct Backward {
  const Shape &s;
  Panels typed, plain;
  const RowKernels &rows = row_kernels();
  const T *grad, *q, *k, *v, *o;
  const float *lse;
  Target<T> dq, dk, dv;
  Buffer queries{}, grads{}, keys{}, values{}, panel{}, scores{}, slopes{}, delta{};
  Buffer q_right{}, g_right{}, k_right{}, q_sums{}, k_sums{}, v_sums{};

  // All heads of q that share one head of k and v.
  void head(int64_t batch, int64_t kv) {
    const int64_t dw = plain.width(s.d), group = s.hq / s.hkv;
    reset(k_sums, s.tk * dw);
    reset(v_sums, s.tk * dw);
    for (int64_t h = kv * group; h < (kv + 1) * group; h++)
      for (int64_t first = 0; first < s.tq; first += kBlock) query_block(batch, h, kv, first, dw);
    for (int64_t t = 0; t < s.tk; t++) {
      dk.put_or_add(s.continues, s.start(s.k, batch, t, kv), k_sums.data() + t * dw, s.d);
      dv.put_or_add(s.continues, s.start(s.v, batch, t, kv), v_sums.data() + t * dw, s.d);
    }
  }

  void query_block(int64_t batch, int64_t h, int64_t kv, int64_t first, int64_t dw) {
    const int64_t m = std::min(kBlock, s.tq - first), wide = s.hq * s.d, end = s.seen(first + m - 1);
    const int64_t dense = s.dense(batch, first, h);
    const T *q_block = q + s.start(s.q, batch, first, h), *g_block = grad + dense;
    typed.pack(queries, q_block, s.q.row, true, m, s.d, true);
    typed.pack(q_right, q_block, s.q.row, false, s.d, m, false);
    typed.pack(grads, g_block, wide, true, m, s.d, true);
    typed.pack(g_right, g_block, wide, false, s.d, m, false);
    reset(delta, m);
    for (int64_t i = 0; i < m; i++)
      for (int64_t c = 0; c < s.d; c++) delta[i] += to_float(g_block[i * wide + c]) * to_float(o[dense + i * wide + c]);
    reset(q_sums, m * dw);
    reset(scores, kBlock * kBlock);
    reset(slopes, kBlock * kBlock);
    for (int64_t key = 0; key < end; key += kBlock) {
      const int64_t n = std::min(kBlock, end - key);
      const T *k_block = k + s.start(s.k, batch, key, kv);
      typed.pack(keys, k_block, s.k.row, true, n, s.d, false);
      typed.pack(k_right, k_block, s.k.row, false, s.d, n, false);
      typed.pack(values, v + s.start(s.v, batch, key, kv), s.v.row, true, n, s.d, false);
      typed.multiply(queries, keys, m, n, s.d, scores.data(), kBlock, false);
      typed.multiply(grads, values, m, n, s.d, slopes.data(), kBlock, false);
      for (int64_t i = 0; i < m; i++) {
        slope_row(i, std::clamp(s.seen(first + i) - key, int64_t{0}, n), n, lse[s.line(batch, first + i, h)],
                  s.drops ? s.index(batch, h, first + i, key) : 0);
      }
      plain.pack(panel, scores.data(), kBlock, false, n, m, true);
      plain.multiply(panel, g_right, n, s.d, m, v_sums.data() + key * dw, dw, true);
      plain.pack(panel, slopes.data(), kBlock, false, n, m, true);
      plain.multiply(panel, q_right, n, s.d, m, k_sums.data() + key * dw, dw, true);
      plain.pack(panel, slopes.data(), kBlock, true, m, n, true);
      plain.multiply(panel, k_right, m, s.d, n, q_sums.data(), dw, true);
    }
    for (int64_t i = 0; i < m; i++)
      dq.put_or_add(s.continues, s.start(s.q, batch, first + i, h), q_sums.data() + i * dw, s.d);
  }

  // Scores become probabilities (those that dropout kept, scaled), slopes (dP) become the gradient of the scores
  // before scaling.
  void slope_row(int64_t i, int64_t seen, int64_t n, float at, uint64_t index) {
    float *p = scores.data() + i * kBlock, *ds = slopes.data() + i * kBlock;
    rows.exp_sum(p, seen, s.scale, at);
    if (s.drops) {
      float mask[kBlock];
      rows.kept(mask, seen, s.draws, index);
      for (int64_t j = 0; j < seen; j++) ds[j] = p[j] * (ds[j] * mask[j] - delta[i]) * s.scale;
      for (int64_t j = 0; j < seen; j++) p[j] *= mask[j];
    } else {
      for (int64_t j = 0; j < seen; j++) ds[j] = p[j] * (ds[j] - delta[i]) * s.scale;
    }
    std::fill(p + seen, p + n, 0.0f);
    std::fill(ds + seen, ds + n, 0.0f);
  }
};
}  // namespace

int32_t attention_forward(zs_call *call) {
  const Shape s(call);
  if (s.tk == 0 || s.d == 0) return fail(call, ZS_BAD_ARGUMENT, "attention over no keys");
  const int dtype = dtype_of(call, ATTENTION_Q);
  return by_float(call, dtype, [&]<class T>(T) {
    const int64_t blocks = (s.tq + kBlock - 1) / kBlock;
    parallel_for(call, s.b * s.hq * blocks, 1, [&](int64_t begin, int64_t end) {
      Forward<T> run{call, s, Panels(dtype), Panels(ZS_F32), row_kernels(), data<T>(call, ATTENTION_Q), data<T>(call, ATTENTION_K),
                     data<T>(call, ATTENTION_V), Target<T>(call, ATTENTION_O), data<float>(call, ATTENTION_LSE)};
      for (int64_t i = begin; i < end; i++) run.block(i / blocks / s.hq, i / blocks % s.hq, i % blocks * kBlock);
    });
    return int32_t{ZS_OK};
  });
}

int32_t attention_backward(zs_call *call) {
  const Shape s(call);
  if (s.tk == 0 || s.d == 0) return fail(call, ZS_BAD_ARGUMENT, "attention over no keys");
  const int dtype = dtype_of(call, ATTENTION_BACKWARD_Q);
  return by_float(call, dtype, [&]<class T>(T) {
    parallel_for(call, s.b * s.hkv, 1, [&](int64_t begin, int64_t end) {
      Backward<T> run{s, Panels(dtype), Panels(ZS_F32), row_kernels(), data<T>(call, ATTENTION_BACKWARD_DO),
                      data<T>(call, ATTENTION_BACKWARD_Q), data<T>(call, ATTENTION_BACKWARD_K), data<T>(call, ATTENTION_BACKWARD_V),
                      data<T>(call, ATTENTION_BACKWARD_O), data<float>(call, ATTENTION_BACKWARD_LSE), Target<T>(call, ATTENTION_DQ),
                      Target<T>(call, ATTENTION_DK), Target<T>(call, ATTENTION_DV)};
      for (int64_t i = begin; i < end; i++) run.head(i / s.hkv, i % s.hkv);
    });
    return int32_t{ZS_OK};
  });
}

}  // namespace zs::cpu
