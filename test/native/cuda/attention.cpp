// Attention: sizes around the blocks' edges, heads of every padding, grouped queries, packed and odd layouts, parts of a
// sequence, continued sums, dropout with shared draws and without; rotary.
#include "../../../native/ops/attention.h"

#include <cmath>

#include "check.h"

namespace test {
namespace {

struct Shape {
  int64_t b, tq, tk, hq, hkv, d;
  bool causal = true;
  int64_t position = 0;
  double p = 0;
  bool packed = false;  // q, k and v in one tensor, as are their gradients; needs tq == tk
  bool continues = false;
  int64_t o_first = 0, o_after = 0;
  int64_t full = 0, key = 0;  // of dropout's draws
  bool f32_out = false;
};

std::vector<double> scalars_of(const Shape &s) {
  const int64_t q_row = s.hq * s.d, kv_row = s.hkv * s.d, row = q_row + 2 * kv_row;
  std::vector<double> v = {double(s.b), double(s.tq), double(s.tk), double(s.hq), double(s.hkv), double(s.d),
                           1 / std::sqrt(double(s.d)), double(s.causal), double(s.position)};
  const auto add = [&](int64_t offset, int64_t step, int64_t t) { v.insert(v.end(), {double(offset), double(step), double(t * step)}); };
  if (s.packed) add(0, row, s.tq), add(q_row, row, s.tq), add(q_row + kv_row, row, s.tq);
  else add(0, q_row, s.tq), add(0, kv_row, s.tk), add(0, kv_row, s.tk);
  v.insert(v.end(), {s.p, 1234567, 42, 3, 1, double(s.hq + 2), 5, double(s.key), double(s.full > 0 ? s.full : s.tk + 8),
                     double(s.continues), double(s.o_first), double(s.o_first + s.tq + s.o_after)});
  return v;
}

void attention_case(int dtype, const Shape &s) {
  const std::string note = "dtype " + std::to_string(dtype) + ": " + std::to_string(s.b) + " x " + std::to_string(s.tq) + " by " +
                           std::to_string(s.tk) + ", heads " + std::to_string(s.hq) + "/" + std::to_string(s.hkv) + " of " +
                           std::to_string(s.d) + (s.causal ? ", causal" : "") + (s.p > 0 ? ", dropout" : "") +
                           (s.packed ? ", packed" : "") + (s.continues ? ", continues" : "");
  const int64_t o_t = s.o_first + s.tq + s.o_after, q_row = s.hq * s.d, kv_row = s.hkv * s.d;
  const int out = s.f32_out || s.continues ? ZS_F32 : dtype;
  Value q = s.packed ? normal(dtype, {s.b, s.tq, q_row + 2 * kv_row}) : normal(dtype, {s.b, s.tq, q_row});
  Value k = s.packed ? same(q, 2) : normal(dtype, {s.b, s.tk, kv_row}), v = s.packed ? same(q, 2) : normal(dtype, {s.b, s.tk, kv_row});
  const Value o = normal(out, {s.b, o_t, q_row});
  Value lse = normal(ZS_F32, {s.b, s.hq, o_t});
  if (lse.count() > 2) lse.set(1, -INFINITY);  // nothing known so far
  const double close = dtype == ZS_F32 ? 5e-6 : dtype == ZS_BF16 ? 1.5e-2 : 2e-3;
  check({ZS_OP_attention_forward, {o, lse, q, k, v}, scalars_of(s), 2, close, note});

  // lse as forward leaves it, from obvious loops, so that weights are weights.
  for (int64_t i = 0; i < s.b * s.hq * s.tq; i++) {
    const int64_t t = i % s.tq, h = i / s.tq % s.hq, b = i / s.tq / s.hq, kv = h / (s.hq / s.hkv);
    const std::vector<double> n = scalars_of(s);
    const auto at = [&](const Value &x, int first, int64_t time, int64_t head, int64_t c) {
      return x.get(int64_t(n[first]) + b * int64_t(n[first + 2]) + time * int64_t(n[first + 1]) + head * s.d + c);
    };
    double total = 0;
    const int64_t seen = s.causal ? std::min(s.tk, std::max(int64_t{0}, t + s.position + 1)) : s.tk;
    for (int64_t key = 0; key < seen; key++) {
      double score = 0;
      for (int64_t c = 0; c < s.d; c++) score += at(q, ATTENTION_Q_OFFSET, t, h, c) * at(s.packed ? q : k, ATTENTION_K_OFFSET, key, kv, c);
      total += std::exp(score / std::sqrt(double(s.d)));
    }
    lse.set((b * s.hq + h) * o_t + s.o_first + t, std::log(total));
  }
  const Value grad = normal(dtype, {s.b, o_t, q_row}), o_typed = normal(dtype, {s.b, o_t, q_row});
  const auto gradient = [&](const Value &x) { return normal(out, x.dims); };
  const Value dq = gradient(q), dk = s.packed ? same(dq, 0) : gradient(k), dv = s.packed ? same(dq, 0) : gradient(v);
  if (s.packed) k = same(q, 4), v = same(q, 4);
  check({ZS_OP_attention_backward, {dq, dk, dv, grad, q, k, v, o_typed, lse}, scalars_of(s), 3, 2 * close, note});
}

void rotary(int dtype, int64_t b, int64_t t, int64_t heads, int64_t d, int64_t position, int64_t split, int64_t second) {
  const Value x = normal(dtype, {b, t, heads * d}), table = normal(ZS_F32, {40, d});
  for (double inverse : {0.0, 1.0}) {
    const std::vector<double> scalars = {double(b), double(t), double(heads), double(d), double(position), inverse, double(split), double(second)};
    check({ZS_OP_rotary, {normal(dtype, x.dims), x, table}, scalars, 1, 2e-6, "D " + std::to_string(d)});
    check({ZS_OP_rotary, {x, same(x, 0), table}, scalars, 1, 2e-6, "in place, D " + std::to_string(d)});
  }
}

}  // namespace

void attention() {
  for (int dtype : kFloats) {
    attention_case(dtype, {1, 1, 1, 1, 1, 1});
    attention_case(dtype, {1, 70, 70, 2, 1, 64, true, 0, 0, true});
    attention_case(dtype, {1, 70, 70, 2, 2, 64, true, 0, 0.3, true, false, 0, 0, 80});                                // draws shared
    attention_case(dtype, {1, 33, 67, 2, 1, 16, true, 34, 0.5, false, false, 0, 0, 69});             // draws not shared
    attention_case(dtype, {2, 5, 130, 2, 2, 8, false, 0, 0.2, false, false, 0, 0, 132, 2});          // part of the keys
    attention_case(dtype, {1, 66, 40, 4, 2, 72, false});
    attention_case(dtype, {1, 66, 65, 1, 1, 128, true, 0, 0.1});
    attention_case(dtype, {2, 1, 100, 4, 2, 24, true, 99});                                          // one query, many keys
    attention_case(dtype, {1, 9, 20, 2, 1, 7, true, 3, 0.25, false, false, 2, 3});                   // odd heads; a part of o
    attention_case(dtype, {1, 20, 10, 1, 1, 40, true, -6});                                          // queries that see nothing
    attention_case(dtype, {1, 70, 33, 2, 1, 32, false, 0, 0, false, true, 1, 2});                    // continues
    attention_case(dtype, {1, 10, 70, 2, 2, 64, true, 5, 0.3, false, true});
    attention_case(dtype, {1, 12, 70, 1, 1, 48, true, 60, 0, false, false, 0, 0, 0, 0, true});       // f32 results
    attention_case(dtype, {1, 34, 35, 2, 1, 200, true, 1, 0.2});
    attention_case(dtype, {1, 0, 3, 1, 1, 8}), attention_case(dtype, {0, 4, 4, 1, 1, 8});
    rotary(dtype, 2, 7, 3, 16, 5, 7, 0), rotary(dtype, 1, 9, 2, 64, 3, 4, 20), rotary(dtype, 1, 4, 2, 6, 0, 100, 0), rotary(dtype, 0, 4, 2, 8, 0, 4, 0);
  }
}

}  // namespace test
