// Embedding, reductions, moves of data of any dtype, sums by id, the k largest.
#include "../../../native/ops/embedding.h"

#include "../../../native/ops/layout.h"
#include "check.h"

namespace test {
namespace {

Value any(int dtype, std::vector<int64_t> dims) {
  Value v = constant(dtype, std::move(dims), 0);
  for (int64_t i = 0; i < v.count(); i++) v.set(i, static_cast<double>(pick(0, 250)));
  return v;
}

void embedding(int dtype, int64_t rows, int64_t cols, int64_t vocab, int64_t start) {
  const int64_t full = start + vocab + 2;
  Value ids = integers({rows}, std::max<int64_t>(0, start - 2), full);
  const std::vector<double> scalars = {double(rows), double(cols), double(start), double(vocab)};
  std::vector<double> with_full = scalars;
  with_full.push_back(double(full));
  const std::string note = std::to_string(rows) + " of " + std::to_string(vocab) + " x " + std::to_string(cols);
  const Value y = normal(dtype, {rows, cols}), table = normal(dtype, {vocab, cols});
  check({ZS_OP_embedding_forward, {y, table, ids}, with_full, 1, kExact, note});
  check({ZS_OP_embedding_backward, {normal(ZS_F32, {vocab, cols}), normal(dtype, {rows, cols}), ids}, scalars, 1, kExact, note});
  if (rows == 0 || cols == 0) return;
  for (int64_t wrong : {int64_t{-1}, full}) {
    ids.set(rows / 2, static_cast<double>(wrong));
    check({ZS_OP_embedding_forward, {y, table, ids}, with_full, 1, kExact, note + " wrong", wrong});
  }
}

void scatter(int64_t outer, int64_t n, int64_t inner, int64_t m) {
  const std::vector<double> scalars = {double(outer), double(n), double(inner), double(m)};
  const std::string note = std::to_string(outer) + " x " + std::to_string(n) + " x " + std::to_string(inner) + " by " + std::to_string(m);
  Value ids = integers({m}, 0, n);
  const Value y = normal(ZS_F32, {outer, n, inner}), x = normal(ZS_F32, {outer, m, inner});
  check({ZS_OP_scatter_add, {y, x, ids}, scalars, 1, kExact, note});
  for (int dtype = ZS_F32; dtype <= ZS_F8E5M2; dtype++)
    check({ZS_OP_gather, {any(dtype, {outer, m, inner}), any(dtype, {outer, n, inner}), ids}, scalars, 1, kExact, note});
  if (m == 0) return;
  ids.set(m / 2, static_cast<double>(n));
  check({ZS_OP_scatter_add, {y, x, ids}, scalars, 1, kExact, note + " wrong", n});
  ids.set(m / 2, -1);
  check({ZS_OP_gather, {x, y, ids}, scalars, 1, kExact, note + " wrong", -1});
}

void reduce(int x_dtype, int y_dtype, int64_t outer, int64_t n, int64_t inner) {
  const std::string note = std::to_string(outer) + " x " + std::to_string(n) + " x " + std::to_string(inner);
  for (int kind : {REDUCE_SUM, REDUCE_MAX, REDUCE_MIN})
    for (double accumulate : {0.0, 1.0})
      check({ZS_OP_reduce, {normal(y_dtype, {outer, inner}), normal(x_dtype, {outer, n, inner})},
             {double(outer), double(n), double(inner), double(kind), accumulate, kind == REDUCE_SUM ? 0.01 : 1.0}, 1, 2e-6, note});
}

void permute(int dtype, const std::vector<int64_t> &dims, const std::vector<int> &order) {
  std::vector<int64_t> to;
  std::vector<double> scalars(8, 0);
  std::string note = "order";
  for (size_t i = 0; i < order.size(); i++) {
    to.push_back(dims[static_cast<size_t>(order[i])]);
    scalars[i] = order[i];
    note += " " + std::to_string(order[i]) + " (" + std::to_string(to.back()) + ")";
  }
  check({ZS_OP_permute, {any(dtype, to), any(dtype, dims)}, scalars, 1, kExact, note});
}

void top_k(int dtype, int64_t rows, int64_t cols, int64_t k) {
  Value x = normal(dtype, {rows, cols});
  for (int64_t i = 0; i < x.count(); i += 3) x.set(i, double(pick(-2, 3)) * 0.5 + 0.0);  // ties, and zeros of both signs
  if (cols > 4) x.set(1, -0.0), x.set(2, 0.0), x.set(3, -1.0 / 0.0);
  check({ZS_OP_top_k, {normal(dtype, {rows, k}), integers({rows, k}, 0, 9), x}, {double(rows), double(cols), double(k)}, 2, kExact,
         std::to_string(k) + " of " + std::to_string(cols)});
}

}  // namespace

void moves() {
  for (int dtype : kFloats) {
    embedding(dtype, 50, 7, 13, 0), embedding(dtype, 300, 16, 5, 100), embedding(dtype, 1, 1, 1, 0), embedding(dtype, 0, 8, 4, 0);
    embedding(dtype, 2100, 520, 4, 0);  // more than a sorted list of each id; two slices of columns
    for (int64_t n : {0, 1, 5, 33, 1000}) reduce(dtype, ZS_F32, 3, n, 1), reduce(dtype, dtype, 2, n, 5), reduce(dtype, ZS_F32, 4, n, 64);
    reduce(dtype, ZS_F32, 1, 50000, 1), reduce(dtype, dtype, 2, 40008, 1), reduce(dtype, ZS_F32, 1, 1000, 200), reduce(dtype, dtype, 40, 9, 1);
    for (int64_t cols : {1, 5, 8, 64, 3000}) top_k(dtype, 5, cols, cols < 4 ? 1 : 4);
    top_k(dtype, 2, 20, 20), top_k(dtype, 0, 4, 2), top_k(dtype, 3, 4, 0);
  }
  scatter(1, 7, 8, 40), scatter(3, 5, 9, 21), scatter(2, 4, 1, 0), scatter(2, 3, 16, 900), scatter(1, 400, 4, 3);
  for (int dtype = ZS_F32; dtype <= ZS_F8E5M2; dtype++) {
    for (const auto &c : std::vector<std::vector<double>>{{4, 8, 16, 16, 0, 8}, {3, 5, 1, 7, 2, 5}, {1, 33, 0, 40, 3, 50}, {7, 1, 2, 3, 0, 1},
                                                          {3, 7, 0, 7, 0, 7}, {5, 16, 0, 16, 0, 32}})
      check({ZS_OP_copy_2d, {any(dtype, {200}), any(dtype, {200})}, c, 1, kExact, std::to_string(c[0]) + " rows"});
    permute(dtype, {6}, {0}), permute(dtype, {}, {}), permute(dtype, {5, 7}, {1, 0}), permute(dtype, {33, 70}, {1, 0});
    permute(dtype, {2, 3, 4, 8}, {0, 2, 1, 3}), permute(dtype, {2, 3, 4, 5}, {3, 1, 0, 2}), permute(dtype, {4, 1, 6, 3}, {2, 0, 1, 3});
    permute(dtype, {2, 40, 3, 35}, {0, 3, 2, 1}), permute(dtype, {3, 0, 2}, {2, 1, 0}), permute(dtype, {2, 2, 2, 2, 2, 3}, {5, 0, 4, 1, 3, 2});
    permute(dtype, {1, 1}, {1, 0}), permute(dtype, {3, 16, 32}, {1, 0, 2}), permute(dtype, {2, 3, 4}, {0, 1, 2});
  }
}

}  // namespace test
