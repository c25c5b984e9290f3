// quantize and its transpose, scales from amax and from histories: all bit for bit the CPU's.
#include <cmath>

#include "../../../native/backend/float8.h"
#include "check.h"

namespace test {
namespace {

void quantize(int x_dtype, int dtype, int64_t rows, int64_t cols) {
  Value x = normal(x_dtype, {rows, cols}, 20);
  if (x.count() > 8) x.set(1, 1e9), x.set(3, -1e-4), x.set(5, -0.0);
  const Value amax = constant(ZS_F32, {1}, 0.25), scale = constant(ZS_F32, {1}, 5.7);
  const Value y = constant(dtype, {rows, cols}, 1), y_t = constant(dtype, {cols, zs::padded(rows)}, 1);
  const std::vector<double> scalars = {double(rows), double(cols)};
  const std::string note = std::to_string(rows) + " x " + std::to_string(cols);
  check({ZS_OP_quantize, {amax, y, absent(), x, scale}, scalars, 3, kExact, note});
  check({ZS_OP_quantize, {amax, y, y_t, x, scale}, scalars, 3, kExact, note + ", both"});
  check({ZS_OP_quantize, {amax, absent(), y_t, x, scale}, scalars, 3, kExact, note + ", transposed"});
  if (x.count() < 4) return;
  x.set(2, -INFINITY);
  check({ZS_OP_quantize, {amax, y, y_t, x, scale}, scalars, 3, kExact, note + ", infinite"});
  x.set(0, NAN);
  check({ZS_OP_quantize, {amax, y, absent(), x, scale}, scalars, 3, kExact, note + ", not a number"});
}

void scales(int64_t n, int64_t length, bool of_largest) {
  Value amax = normal(ZS_F32, {n}), history = normal(ZS_F32, {n, length}), largest = constant(ZS_F32, {n}, 448);
  for (Value *v : {&amax, &history})
    for (int64_t i = 0; i < v->count(); i++) v->set(i, std::fabs(v->get(i)));
  if (n > 4) amax.set(0, 0), amax.set(1, INFINITY), amax.set(2, NAN), amax.set(3, 1e-30), largest.set(4, 57344);
  const Value scale = constant(ZS_F32, {n}, 3), inverse = constant(ZS_F32, {n}, 0.5);
  const std::string note = std::to_string(n) + " of " + std::to_string(length);
  check({ZS_OP_fp8_scale, {scale, inverse, amax, history, largest}, {double(n), double(length), double(of_largest), 2}, 4, kExact, note});
  check({ZS_OP_fp8_scale, {scale, inverse, amax, absent(), largest}, {double(n), 0, 0, 0}, 4, kExact, note + ", current"});
}

}  // namespace

void float8() {
  for (int x_dtype : kFloats)
    for (int dtype : {ZS_F8E4M3, ZS_F8E5M2}) {
      quantize(x_dtype, dtype, 1, 1), quantize(x_dtype, dtype, 5, 3), quantize(x_dtype, dtype, 64, 64), quantize(x_dtype, dtype, 100, 80);
      quantize(x_dtype, dtype, 130, 67), quantize(x_dtype, dtype, 16, 400), quantize(x_dtype, dtype, 300, 16), quantize(x_dtype, dtype, 0, 16);
    }
  for (bool of_largest : {false, true}) scales(1, 1, of_largest), scales(7, 5, of_largest), scales(6, 256, of_largest), scales(6, 700, of_largest);
}

}  // namespace test
