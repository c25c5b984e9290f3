// matmul on the CPU: reads the call, picks the instruction set and the walk (few rows, batch of small, one large).
#include "../matmul_call.h"
#include "cpu.h"
#include "gemm.h"

namespace zs::cpu {

const GemmKernels *gemm_kernels(int dtype, [[maybe_unused]] bool pairs) {
#if defined(ZS_X86)
  switch (simd()) {
    case Simd::avx512bf16: return pairs && dtype == ZS_BF16 ? &gemm_avx512bf16 : &gemm_avx512[dtype];
    case Simd::avx512: return &gemm_avx512[dtype];
    case Simd::avx2: return &gemm_avx2[dtype];
    case Simd::scalar: break;
  }
#endif
  return &gemm_portable[dtype];
}

namespace {

// From 5 to 8 rows only a matrix that the caches do not hold is read as it lies: a small one gives the same bits in
// panels whatever M is, so that cutting tokens over ranks does not change them.
constexpr int64_t few_rows_size = 1 << 18;

int size_of(int dtype) { return dtype == ZS_F32 ? 4 : 2; }

bool run(const zs_call *call, GemmProblem &p, int64_t batch, bool shared_b) {
  if (batch == 0 || p.m == 0 || p.n == 0) return true;
  if (shared_b && !p.trans_a) {  // one tall a
    p.m *= batch;
    batch = 1;
  }
  const int64_t a_step = p.m * p.k, b_step = shared_b ? 0 : p.n * p.k;
  const int dtype = call->tensors[MATMUL_A].dtype;
  const bool few = p.m <= 4 || (p.m <= 8 && p.n * p.k >= few_rows_size);
  const bool small = static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k) < 3.2e7;
  if (batch > 1 && small) return gemm_batch(call, p, batch, a_step, b_step);
  for (int64_t i = 0; i < batch; i++) {
    const GemmProblem item = gemm_item(p, i, a_step, b_step);
    if (!(few ? gemm_few_rows(call, item, dtype) : gemm(call, item))) return false;
  }
  return true;
}

}  // namespace

int32_t matmul(zs_call *call) {
  const zs_tensor *t = call->tensors;
  const int64_t batch = integer(call, MATMUL_BATCH);
  GemmProblem p{};
  p.m = integer(call, MATMUL_M), p.n = integer(call, MATMUL_N), p.k = integer(call, MATMUL_K);
  p.trans_a = integer(call, MATMUL_TRANS_A) != 0, p.trans_b = integer(call, MATMUL_TRANS_B) != 0;
  p.finish.epilogue = static_cast<int>(integer(call, MATMUL_EPILOGUE));
  p.finish.accumulate = integer(call, MATMUL_ACCUMULATE) != 0;
  if (int32_t status = check_matmul(call, p.m, p.n, p.finish.epilogue, p.finish.accumulate)) return status;
  p.a = t[MATMUL_A].data, p.b = t[MATMUL_B].data;
  p.a_row = p.trans_a ? p.m : p.k, p.b_row = p.trans_b ? p.k : p.n;
  p.a_size = size_of(t[MATMUL_A].dtype), p.y_size = size_of(t[MATMUL_Y].dtype);
  p.finish.y = t[MATMUL_Y].data, p.finish.pre = t[MATMUL_PRE].data;
  p.finish.bias = t[MATMUL_BIAS].data, p.finish.pre_in = t[MATMUL_PRE_IN].data;
  p.finish.alpha = present(call, MATMUL_ALPHA) ? *data<float>(call, MATMUL_ALPHA) : 1.0f;
  p.kernels = gemm_kernels(t[MATMUL_A].dtype);
  const bool shared_b = batch > 1 && t[MATMUL_B].count == p.k * p.n;
  if (!run(call, p, batch, shared_b)) return fail(call, ZS_NO_MEMORY, "matmul: no memory for packing");
  return ZS_OK;
}

}  // namespace zs::cpu
