// Norms, softmax, cross entropy: rows that fit into registers and longer ones, optional tensors, edges of exponentials.
#include <cmath>

#include "../../../native/ops/norm.h"
#include "../../../native/ops/softmax.h"
#include "check.h"

namespace test {
namespace {

// The values that a forward pass would have left for backward.
void statistics(const Value &x, int64_t rows, int64_t cols, bool layer, Value &mean, Value &rstd) {
  for (int64_t r = 0; r < rows; r++) {
    double m = 0, squares = 0;
    for (int64_t c = 0; layer && c < cols; c++) m += x.get(r * cols + c) / double(cols);
    for (int64_t c = 0; c < cols; c++) squares += (x.get(r * cols + c) - m) * (x.get(r * cols + c) - m);
    mean.set(r, m);
    rstd.set(r, 1 / std::sqrt(squares / double(cols) + 1e-5));
  }
}

void norms(int dtype, int64_t rows, int64_t cols, int flags) {
  const bool affine = flags & 1, residual = flags & 2;
  const std::string note = std::to_string(rows) + " x " + std::to_string(cols) + ", flags " + std::to_string(flags);
  const Value x = normal(dtype, {rows, cols}), junk = normal(dtype, {rows, cols}), dy = normal(dtype, {rows, cols});
  const Value weight = affine ? normal(dtype, {cols}) : absent(), bias = affine ? normal(dtype, {cols}) : absent();
  const Value more = residual ? normal(dtype, {rows, cols}) : absent(), sum = residual ? junk : absent();
  Value mean = normal(ZS_F32, {rows}), rstd = mean;
  const double n = static_cast<double>(cols), m = static_cast<double>(rows);
  check({ZS_OP_layer_norm_forward, {junk, mean, rstd, sum, x, weight, bias, more}, {m, n, 1e-5}, 4, 2e-5, note});
  check({ZS_OP_rms_norm_forward, {junk, rstd, sum, x, weight, more}, {m, n, 1e-5}, 3, 2e-5, note});
  const Value dweight = affine ? normal(ZS_F32, {cols}) : absent(), dbias = affine ? normal(ZS_F32, {cols}) : absent();
  statistics(x, rows, cols, true, mean, rstd);
  check({ZS_OP_layer_norm_backward, {junk, dweight, dbias, dy, x, weight, mean, rstd, more}, {m, n}, 3, 2e-5, note});
  check({ZS_OP_layer_norm_backward, {dy, dweight, absent(), same(dy, 0), x, weight, mean, rstd, more}, {m, n}, 3, 2e-5, note + " in place"});
  statistics(x, rows, cols, false, mean, rstd);
  check({ZS_OP_rms_norm_backward, {junk, dweight, dy, x, weight, rstd, more}, {m, n}, 2, 2e-5, note});
  if (residual)
    check({ZS_OP_rms_norm_backward, {more, dweight, dy, x, weight, rstd, same(more, 0)}, {m, n}, 2, 2e-5, note + " onto dresidual"});
}

void softmax(int dtype, int64_t rows, int64_t cols) {
  Value x = normal(dtype, {rows, cols}, 4);
  if (cols > 40) for (int64_t c = 0; c < 33; c++) x.set(c, -INFINITY);  // a thread that sees nothing finite
  if (rows > 2) x.set(2 * cols, NAN);
  const std::string note = std::to_string(rows) + " x " + std::to_string(cols);
  for (double log : {0.0, 1.0}) {
    const double r = static_cast<double>(rows), c = static_cast<double>(cols);
    check({ZS_OP_softmax_forward, {normal(dtype, {rows, cols}), x}, {r, c, log}, 1, 5e-6, note});
    Value y = normal(dtype, {rows, cols}, 0.3);
    if (log > 0) for (int64_t i = 0; i < y.count(); i++) y.set(i, -std::fabs(y.get(i)) - 3);
    const Value dy = normal(dtype, {rows, cols});
    check({ZS_OP_softmax_backward, {dy, same(dy, 0), y}, {r, c, log}, 1, 3e-5, note});
  }
}

void classifier(int dtype, int64_t rows, int64_t v, int64_t stride) {
  const Value logits = normal(dtype, {rows, stride}, 3), losses = normal(ZS_F32, {rows});
  Value targets = integers({rows}, 0, v);
  if (rows > 1) targets.set(1, -100);
  const std::string note = std::to_string(rows) + " x " + std::to_string(v) + " of " + std::to_string(stride);
  const double r = static_cast<double>(rows), cols = static_cast<double>(v), step = static_cast<double>(stride);
  Value other = targets;
  if (rows > 1) other.set(1, 0);
  for (double gradient : {0.0, 1.0}) {
    check({ZS_OP_classifier, {logits, losses, losses, targets}, {r, cols, step, -100, gradient, 0.25}, 3, 5e-6, note});
    check({ZS_OP_classifier, {logits, losses, absent(), other}, {r, cols, step, 0, gradient, 0.25}, 3, 5e-6, note});
  }
  targets.set(0, static_cast<double>(v));
  check({ZS_OP_classifier, {logits, losses, absent(), targets}, {r, cols, step, -100, 1, 0.25}, 3, 0, note + " wrong", v});
}

void parts(int dtype, int64_t rows, int64_t v) {
  const Value logits = normal(dtype, {rows, v}, 3), losses = normal(ZS_F32, {rows}), stats = normal(ZS_F32, {rows, 3});
  Value targets = integers({rows}, 0, 3 * v + 1);
  if (rows > 1) targets.set(1, -100);
  const std::string note = std::to_string(rows) + " x " + std::to_string(v);
  const double r = static_cast<double>(rows), cols = static_cast<double>(v);
  check({ZS_OP_classifier_part, {stats, logits, targets}, {r, cols, -100, cols, 3 * cols + 1}, 1, 5e-6, note});
  Value all = normal(ZS_F32, {3, rows, 3});
  for (int64_t i = 0; i < 3 * rows; i++) {
    all.set(3 * i + 1, i % 4 == 3 ? 0 : std::fabs(all.get(3 * i + 1)) + 1);
    if (i % 4 == 3) all.set(3 * i, -INFINITY);
    if (i / rows == 1) all.set(3 * i + 2, -INFINITY);
  }
  for (double gradient : {0.0, 1.0})
    check({ZS_OP_classifier_merge, {logits, losses, targets, all}, {r, cols, -100, cols, 3, gradient, 0.5}, 2, 5e-6, note});
  targets.set(0, -7);
  check({ZS_OP_classifier_part, {stats, logits, targets}, {r, cols, -100, cols, 3 * cols + 1}, 1, 0, note + " wrong", -7});
}

}  // namespace

void rows() {
  for (int dtype : kFloats) {
    for (int64_t cols : {1, 33, 64, 130, 776}) for (int flags = 0; flags < 4; flags++) norms(dtype, 5, cols, flags);
    norms(dtype, 14, 768, 3), norms(dtype, 3, 2304, 1), norms(dtype, 1, 3, 1), norms(dtype, 0, 5, 1);
    norms(dtype, 5, 9000, 3), norms(dtype, 2, 33000, 2);  // beyond the registers of backward, of both
    for (int64_t cols : {1, 8, 31, 250, 1024, 5003}) softmax(dtype, 5, cols);
    softmax(dtype, 0, 4);
    classifier(dtype, 5, 1, 1), classifier(dtype, 4, 7, 16), classifier(dtype, 3, 100, 104), classifier(dtype, 3, 5000, 5120);
    for (int64_t v : {1, 16, 37, 2500}) parts(dtype, 6, v);
  }
  check({ZS_OP_classifier_part, {normal(ZS_F32, {2, 3}), normal(ZS_F32, {2, 0}), integers({2}, 0, 9)}, {2, 0, -100, 5, 9}, 1});
}

}  // namespace test
