// Elementwise operations: all kinds and dtypes, odd sizes, in place, broadcasting.
#include "../../../native/ops/elementwise.h"

#include "check.h"

namespace test {
namespace {

const int64_t sizes[] = {0, 1, 7, 8, 33, 1000, 8195};

// Values that each kind is defined for.
Value input(int dtype, int64_t n, int kind) {
  Value x = normal(dtype, {n}, 2);
  if (kind == UNARY_LOG || kind == UNARY_SQRT || kind == UNARY_RECIPROCAL)
    for (int64_t i = 0; i < n; i++) x.set(i, (x.get(i) < 0 ? -x.get(i) : x.get(i)) + 0.25);
  return x;
}

void unary(int dtype, int kind) {
  const bool by_y = kind == UNARY_RELU || kind == UNARY_TANH || kind == UNARY_SIGMOID || kind == UNARY_EXP || kind == UNARY_SQRT ||
                    kind == UNARY_RECIPROCAL;
  for (int64_t n : sizes) {
    const std::string note = "kind " + std::to_string(kind) + ", n " + std::to_string(n);
    const Value x = input(dtype, n, kind), y = input(dtype, n, kind == UNARY_EXP ? UNARY_SQRT : kind);
    check({ZS_OP_unary, {normal(dtype, {n}), x}, {double(kind)}, 1, 3e-6, note});
    check({ZS_OP_unary, {x, same(x, 0)}, {double(kind)}, 1, 3e-6, note + " in place"});
    const Value dy = normal(dtype, {n});
    check({ZS_OP_unary_backward, {dy, dy, by_y ? absent() : x, by_y ? y : absent()}, {double(kind)}, 1, 3e-6, note});
    check({ZS_OP_unary_backward, {dy, same(dy, 0), x, y}, {double(kind)}, 1, 3e-6, note + " in place"});
  }
}

void binary(int dtype) {
  const std::vector<std::vector<int64_t>> shapes[] = {
      {{33}, {33}, {33}},          {{5}, {}, {5}},          {{7, 9}, {9}, {7, 9}},           {{7, 9}, {7, 1}, {7, 9}},
      {{3, 1, 8}, {4, 1}, {3, 4, 8}}, {{1}, {1}, {1}},       {{0}, {1}, {0}},                {{2, 3, 4, 5}, {3, 1, 5}, {2, 3, 4, 5}},
      {{6, 16}, {16}, {6, 16}},    {{1, 24}, {5, 1}, {5, 24}}, {{40, 1, 3}, {1, 2, 1}, {40, 2, 3}}};
  for (int kind = BINARY_ADD; kind <= BINARY_MIN; kind++) {
    for (const auto &shape : shapes) {
      const Value a = normal(dtype, shape[0]), b = normal(dtype, shape[1]), y = normal(dtype, shape[2]);
      const std::string note = "kind " + std::to_string(kind) + ", " + std::to_string(a.count()) + " and " + std::to_string(b.count());
      check({ZS_OP_binary, {y, a, b}, {double(kind)}, 1, kExact, note});
      check({ZS_OP_binary, {y, b, a}, {double(kind)}, 1, kExact, note + " swapped"});
      if (a.count() == y.count()) check({ZS_OP_binary, {a, same(a, 0), b}, {double(kind)}, 1, kExact, note + " in place"});
    }
  }
}

void others(int dtype) {
  for (int64_t n : sizes) {
    const std::string note = "n " + std::to_string(n);
    const Value a = normal(dtype, {n}), b = normal(dtype, {n}), c = normal(dtype, {n});
    check({ZS_OP_affine, {a, same(a, 0)}, {1.7, -0.3}, 1, kExact, note});
    check({ZS_OP_affine, {a, b}, {0, 2}, 1, kExact, note});
    check({ZS_OP_swiglu_forward, {a, b, c}, {}, 1, 2e-6, note});
    check({ZS_OP_swiglu_forward, {b, same(b, 0), c}, {}, 1, 2e-6, note + " in place"});
    check({ZS_OP_swiglu_backward, {a, a, a, b, c}, {}, 2, 3e-6, note});
    check({ZS_OP_swiglu_backward, {b, c, a, same(b, 0), same(c, 1)}, {}, 2, 3e-6, note + " in place"});
  }
}

void cast_and_fill() {
  for (int from = ZS_F32; from <= ZS_F8E5M2; from++) {
    for (int64_t n : sizes) {
      Value x = constant(from, {n}, 0);
      for (int64_t i = 0; i < n; i++) x.set(i, static_cast<double>(pick(0, 1000)) / (from == ZS_F32 ? 7 : from == ZS_U8 ? 4 : 1));
      for (int to = ZS_F32; to <= ZS_F8E5M2; to++) {
        if (to == ZS_U8) for (int64_t i = 0; i < n; i++) x.set(i, static_cast<double>(pick(0, 256)));
        check({ZS_OP_cast, {constant(to, {n}, 1), x}, {}, 1, kExact, std::to_string(from) + " to " + std::to_string(to)});
      }
      check({ZS_OP_fill, {x}, {from == ZS_U8 ? 200.0 : -3.25}, 1, kExact, "n " + std::to_string(n)});
    }
  }
  // What rounds to nothing, to infinity, to even.
  Value odd = constant(ZS_F32, {10}, 0);
  const double values[] = {1e-45, -1e-8, 6e-8, 65519.9, 65520, 3.4e38, 1 + 0x1p-8, 1 + 0x1p-11, 1.0 / 0.0, -0.0};
  for (int i = 0; i < 10; i++) odd.set(i, values[i]);
  for (int to : {ZS_F32, ZS_BF16, ZS_F16, ZS_F8E4M3, ZS_F8E5M2}) check({ZS_OP_cast, {constant(to, {10}, 1), odd}, {}, 1, kExact, "edges"});
}

}  // namespace

void elementwise() {
  for (int dtype : kFloats) {
    for (int kind = UNARY_GELU_TANH; kind <= UNARY_RECIPROCAL; kind++) unary(dtype, kind);
    binary(dtype);
    others(dtype);
  }
  cast_and_fill();
}

}  // namespace test
