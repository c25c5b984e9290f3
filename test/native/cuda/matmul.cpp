// Products: sizes around the tiles of tensor cores, every epilogue, transposed operands, batches, a shared b, sums onto what is
// there. CUDA's go through cuBLASLt, so only where that is.
#include "../../../native/ops/matmul.h"

#include "check.h"

namespace test {
namespace {

struct Shape {
  int64_t batch, m, n, k;
  bool trans_a = false, trans_b = false, accumulate = false, shared_b = false, bias = false, alpha = false;
  int epilogue = EPILOGUE_NONE;
  bool pre = false, f32_out = false;
};

void product(int dtype, const Shape &s) {
  const bool gelu = s.epilogue == EPILOGUE_GELU_TANH || s.epilogue == EPILOGUE_GELU_ERF;
  const bool dgelu = s.epilogue == EPILOGUE_DGELU_TANH || s.epilogue == EPILOGUE_DGELU_ERF;
  const int out = s.f32_out ? ZS_F32 : dtype;
  const Value y = normal(out, {s.batch, s.m, s.n});
  const Value a = normal(dtype, s.trans_a ? std::vector<int64_t>{s.batch, s.k, s.m} : std::vector<int64_t>{s.batch, s.m, s.k});
  const int64_t many = s.shared_b ? 1 : s.batch;
  const Value b = normal(dtype, s.trans_b ? std::vector<int64_t>{many, s.n, s.k} : std::vector<int64_t>{many, s.k, s.n});
  const std::string note = "dtype " + std::to_string(dtype) + " to " + std::to_string(out) + ": " + std::to_string(s.batch) + " x " +
                           std::to_string(s.m) + " x " + std::to_string(s.n) + " x " + std::to_string(s.k) + ", epilogue " +
                           std::to_string(s.epilogue) + (s.trans_a ? ", a transposed" : "") + (s.trans_b ? ", b transposed" : "") +
                           (s.accumulate ? ", onto y" : "") + (s.bias ? ", bias" : "") + (s.alpha ? ", alpha" : "");
  // 16 bits: what follows the product as a kernel of its own rounds once more.
  const double close = out == ZS_F32 ? 3e-5 : dtype == ZS_BF16 ? 1.6e-2 : 2e-3;
  check({ZS_OP_matmul,
         {y, gelu && s.pre ? normal(out, y.dims) : absent(), a, b, s.bias ? normal(dtype, {s.n}) : absent(),
          dgelu ? normal(out, y.dims) : absent(), s.alpha ? constant(ZS_F32, {1}, 0.75) : absent()},
         {double(s.batch), double(s.m), double(s.n), double(s.k), double(s.trans_a), double(s.trans_b), double(s.accumulate),
          double(s.epilogue)},
         2, close, note});
}

}  // namespace

void matmul() {
  if (!device_has(ZS_OP_matmul)) return;
  for (int dtype : kFloats) {
    for (bool ta : {false, true})
      for (bool tb : {false, true}) {
        product(dtype, {1, 1, 1, 1, ta, tb}), product(dtype, {1, 33, 17, 65, ta, tb}), product(dtype, {1, 64, 128, 96, ta, tb});
        product(dtype, {3, 16, 24, 40, ta, tb, true}), product(dtype, {3, 5, 8, 9, ta, tb, false, true, true, true});
      }
    for (int epilogue = EPILOGUE_NONE; epilogue <= EPILOGUE_DGELU_ERF; epilogue++) {
      const bool forward = epilogue == EPILOGUE_NONE || epilogue == EPILOGUE_GELU_TANH || epilogue == EPILOGUE_GELU_ERF;
      for (int64_t n : {7, 64})
        for (bool wide : {false, true}) {
          product(dtype, {1, 40, n, 48, false, true, false, false, forward, false, epilogue, true, wide});
          product(dtype, {2, 9, n, 16, false, false, false, false, false, true, epilogue, false, wide});
        }
    }
    product(dtype, {1, 20, 16, 32, true, false, true, false, false, false, EPILOGUE_NONE, false, true});  // a weight's gradient
    product(dtype, {1, 4, 8, 0}), product(dtype, {1, 4, 8, 0, false, false, true}), product(dtype, {1, 0, 3, 4}), product(dtype, {0, 2, 3, 4});
    product(dtype, {1, 130, 200, 300, false, true, false, false, true});
  }
}

}  // namespace test
