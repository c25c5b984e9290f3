// Optimizers, the global norm, random numbers: all of them bit for bit the CPU's.
#include "../../../native/ops/optimizer.h"

#include "../../../native/ops/random.h"
#include "check.h"

namespace test {
namespace {

const int64_t sizes[] = {0, 1, 9, 16, 2061};

// A norm that is absent, small, clipping, not finite.
std::vector<Value> norms() {
  return {absent(), constant(ZS_F32, {1}, 0.5), constant(ZS_F32, {1}, 40), constant(ZS_F32, {1}, 1.0 / 0.0)};
}
Value positive(Value v) {
  for (int64_t i = 0; i < v.count(); i++) v.set(i, v.get(i) * v.get(i));
  return v;
}

void steps(int grad_dtype, int out_dtype, int64_t n, const Value &norm, double zero) {
  const Value p = normal(ZS_F32, {n}), m = normal(ZS_F32, {n}), v = positive(normal(ZS_F32, {n})), g = normal(grad_dtype, {n});
  const Value out = out_dtype < 0 ? absent() : normal(out_dtype, {n}), u = normal(ZS_F32, {n});
  const std::string note = "gradient " + std::to_string(grad_dtype) + ", out " + std::to_string(out_dtype) + ", n " + std::to_string(n);
  for (double decoupled : {0.0, 1.0}) {
    check({ZS_OP_adamw, {p, m, v, out, g, norm}, {0.01, 0.9, 0.95, 1e-8, 0.1, 0.271, 0.142, 0.125, 1, decoupled, zero}, 5, kExact, note});
    check({ZS_OP_lamb, {m, v, u, g, p, norm}, {0.9, 0.999, 1e-6, 0.1, 0.271, 0.002, decoupled, 0.5, 0, zero}, 4, kExact, note});
    check({ZS_OP_sgd, {p, m, out, g, norm}, {0.1, 0.9, 0.1, 0.01, decoupled, 2, 3, zero}, 4, kExact, note});
    check({ZS_OP_muon, {m, u, g, norm}, {0.95, decoupled, 0.5, 1, zero}, 3, kExact, note});
  }
  check({ZS_OP_sgd, {p, absent(), out, g, norm}, {0.1, 0, 0, 0.01, 0, 1, 1, zero}, 4, kExact, note + " plain"});
  check({ZS_OP_adagrad, {p, v, out, g, norm}, {0.1, 1e-10, 0.01, 1, 1, zero}, 4, kExact, note});
  check({ZS_OP_lion, {p, m, out, g, norm}, {0.001, 0.9, 0.99, 0.1, 1, 1, zero}, 4, kExact, note});
  for (const Value &one : {absent(), constant(ZS_F32, {1}, 0), constant(ZS_F32, {1}, 7), constant(ZS_F32, {1}, 0.01)})
    check({ZS_OP_apply_update, {p, out, u, one, constant(ZS_F32, {1}, 2), norm}, {0.1, 0.01, 0.05, 3}, 2, kExact, note});
}

void global_norm(int dtype) {
  for (int64_t n : sizes) {
    for (double scale : {1e-30, 1.0, 1e-42, 3e4}) {
      Value x = normal(dtype, {n}, scale);
      for (int64_t i = 0; i + 1 < n; i += 3) x.set(i, x.get(i) * 1e-7);  // where the low level counts
      double top = 0;
      for (int64_t i = 0; i < n; i++) top = top > x.get(i) ? top : x.get(i) < 0 ? (top > -x.get(i) ? top : -x.get(i)) : x.get(i);
      for (double start : {0.0, -2.0, 5.0}) check({ZS_OP_absmax, {constant(ZS_F32, {1}, start), x}, {}, 1, kExact});
      const Value largest = constant(ZS_F32, {1}, top);
      Value sum = constant(ZS_I64, {2}, 11);
      check({ZS_OP_sum_squares, {sum, x, largest}, {}, 1, kExact});
      sum.set(0, 4194304 + 77);
      check({ZS_OP_norm_finish, {constant(ZS_F32, {1}, 9), sum, largest}, {}, 1, kExact});
      if (n > 9) {
        x.set(5, 1.0 / 0.0), check({ZS_OP_absmax, {constant(ZS_F32, {1}, 0), x}, {}, 1, kExact, "infinity"});
        x.set(7, 0.0 / 0.0), check({ZS_OP_absmax, {constant(ZS_F32, {1}, 0), x}, {}, 1, kExact, "NaN"});
      }
    }
  }
  for (double odd : {0.0, 1.0 / 0.0, 0.0 / 0.0}) {
    const Value largest = constant(ZS_F32, {1}, odd), sum = constant(ZS_I64, {2}, 5);
    check({ZS_OP_sum_squares, {sum, normal(dtype, {20}), largest}, {}, 1, kExact, "nothing"});
    check({ZS_OP_norm_finish, {constant(ZS_F32, {1}, 9), sum, largest}, {}, 1, kExact, "nothing"});
  }
}

void draws(int dtype) {
  for (int64_t n : {0, 1, 5, 64, 1003}) {
    for (double offset : {0.0, 1.0, 6.0, 17179869171.0, 9007199254739990.0}) {
      for (double kind : {0.0, 1.0})
        check({ZS_OP_random_fill, {normal(dtype, {n})}, {kind, -0.5, 2, 81985529216486895.0 / 16, 77, offset}, 1, kExact});
      const Value x = normal(dtype, {n});
      check({ZS_OP_dropout, {x, same(x, 0)}, {0.3, 5, 9, 1, double(n), double(n), 2, offset, double(n), 0}, 1, kExact, "whole"});
    }
  }
  for (int64_t cols : {1, 7, 16, 40}) {
    for (double split : {0.0, 3.0, 16.0, 100.0}) {
      const Value x = normal(dtype, {6, cols});
      check({ZS_OP_dropout, {normal(dtype, {6, cols}), x}, {0.5, 123456789, 4, 6, double(cols), 211, 3, 8, split, 101}, 1, kExact, "cut"});
    }
  }
  Value x = normal(dtype, {64});
  x.set(3, 1.0 / 0.0), x.set(4, 0.0 / 0.0);
  for (double p : {0.0, 0.9999999, 1e-9}) check({ZS_OP_dropout, {x, same(x, 0)}, {p, 1, 1, 1, 64, 64, 0, 0, 64, 0}, 1, kExact, "edges"});
}

}  // namespace

void optimizers() {
  for (const Value &norm : norms()) {
    for (int64_t n : sizes) steps(ZS_F32, -1, n, norm, 0);
    for (int grad : kFloats)
      for (int out : kFloats) steps(grad, out, 2061, norm, 1);
  }
  for (int dtype : kFloats) {
    global_norm(dtype);
    draws(dtype);
  }
}

}  // namespace test
