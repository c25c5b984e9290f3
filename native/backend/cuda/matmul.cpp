// matmul through cuBLASLt. Its matrices are column-major: y (M,N) of ours is its D (N,M), so our b is its A and our a
// its B. What cuBLASLt does in its epilogue it does; the rest (erf GELU, dGELU that accumulates, what its heuristics
// refuse) follows as kernels of our own. fp8_matmul is the same with a scale for each operand. Includes no CUDA header: test/native/lt_matmul_test.cpp runs it on the host.
#include "../matmul_call.h"
#include "../float8.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <mutex>

#include "../../ops/elementwise.h"
#include "context.h"
#include "matmul.h"
#define ZS_CUDA_KERNEL __attribute__((weak))
#include "kernels.h"
#include "libraries/cublaslt.h"

namespace zs::cuda {

namespace {

constexpr size_t kMaxWorkspace = size_t{32} << 20;
constexpr uint32_t kReductions = 1 | 2;   // of partial sums: in f32, not in y's 16 bits
constexpr int kNotSupported = 15;  // CUBLAS_STATUS_NOT_SUPPORTED

struct Problem {
  int64_t batch, m, n, k;
  bool trans_a, trans_b, accumulate, shared_b;
  int epilogue;  // LT_EPILOGUE_...
  int type, b_type, y_type, bias_type;  // dtypes
  const void *a, *b, *bias, *alpha;
  const void *a_scale, *b_scale;  // 8 bits alone
  bool fast;
  void *y, *aux;
};

int cuda_type(int dtype) {
  switch (dtype) {
    case ZS_F32: return CUDA_TYPE_F32;
    case ZS_BF16: return CUDA_TYPE_BF16;
    case ZS_F8E4M3: return CUDA_TYPE_E4M3;
    case ZS_F8E5M2: return CUDA_TYPE_E5M2;
    default: return CUDA_TYPE_F16;
  }
}
int64_t size_of(int dtype) { return dtype == ZS_F32 ? 4 : 2; }

int64_t alignment(const void *data) {
  uintptr_t address = reinterpret_cast<uintptr_t>(data);
  return static_cast<int64_t>(std::min<uintptr_t>(256, address & (~address + 1)));
}

// Descriptors of one product; the first failure is kept.
struct Descriptors {
  explicit Descriptors(const CublasLt &lt) : lt(lt) {}
  ~Descriptors() {
    for (LtLayout layout : {a, b, d})
      if (layout) lt.layout_destroy(layout);
    if (desc) lt.desc_destroy(desc);
  }
  void keep(int got) { status = status ? status : got; }
  void set(int attribute, const void *value, size_t bytes) { keep(lt.desc_set(desc, attribute, value, bytes)); }
  void set(int attribute, int32_t value) { set(attribute, &value, sizeof value); }
  void set_pointer(int attribute, const void *pointer) { set(attribute, &pointer, sizeof pointer); }

  LtLayout layout(int dtype, int64_t rows, int64_t cols, int32_t batch, int64_t stride) {
    LtLayout made = nullptr;
    keep(lt.layout_create(&made, cuda_type(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), rows));
    if (made && batch > 1) {
      keep(lt.layout_set(made, LT_LAYOUT_BATCH_COUNT, &batch, sizeof batch));
      keep(lt.layout_set(made, LT_LAYOUT_BATCH_STRIDE, &stride, sizeof stride));
    }
    return made;
  }

  void describe(const Problem &p) {
    keep(lt.desc_create(&desc, LT_COMPUTE_32F, CUDA_TYPE_F32));
    if (status) return;
    int32_t batch = static_cast<int32_t>(p.batch);
    set(LT_DESC_TRANSA, p.trans_b ? LT_OP_T : LT_OP_N);
    set(LT_DESC_TRANSB, p.trans_a ? LT_OP_T : LT_OP_N);
    if (p.alpha) set(LT_DESC_POINTER_MODE, LT_POINTER_MODE_DEVICE);
    set(LT_DESC_EPILOGUE, p.epilogue);
    if (p.bias) {
      set_pointer(LT_DESC_BIAS, p.bias);
      set(LT_DESC_BIAS_TYPE, cuda_type(p.bias_type));
    }
    if (p.a_scale) {
      const int8_t fast = p.fast;
      set_pointer(LT_DESC_A_SCALE, p.b_scale);
      set_pointer(LT_DESC_B_SCALE, p.a_scale);
      set(LT_DESC_FAST_ACCUM, &fast, sizeof fast);
    }
    if (p.aux) {
      int64_t ld = p.n, stride = p.m * p.n;
      set_pointer(LT_DESC_AUX, p.aux);
      set(LT_DESC_AUX_LD, &ld, sizeof ld);
      set(LT_DESC_AUX_TYPE, cuda_type(p.y_type));
      if (p.batch > 1) set(LT_DESC_AUX_BATCH_STRIDE, &stride, sizeof stride);
    }
    a = layout(p.b_type, p.trans_b ? p.k : p.n, p.trans_b ? p.n : p.k, batch, p.shared_b ? 0 : p.n * p.k);
    b = layout(p.type, p.trans_a ? p.m : p.k, p.trans_a ? p.k : p.m, batch, p.m * p.k);
    d = layout(p.y_type, p.n, p.m, batch, p.m * p.n);
  }

  const CublasLt &lt;
  LtDesc desc = nullptr;
  LtLayout a = nullptr, b = nullptr, d = nullptr;
  int status = 0;
};

// What cuBLASLt proposes for a problem, asked once, best first; some it then refuses to run. count 0: it has nothing.
struct Proposals {
  std::array<LtHeuristic, 8> list;
  int count = 0;
};
Proposals proposed(const CublasLt &lt, const Problem &p, const Descriptors &descriptors) {
  using Key = std::array<int64_t, 20>;
  static std::mutex lock;
  static std::map<Key, Proposals> known;
  const int64_t align[4] = {alignment(p.b), alignment(p.a), alignment(p.y), alignment(p.aux ? p.aux : p.y)};
  const Key key = {p.batch, p.m, p.n, p.k, p.trans_a, p.trans_b, p.accumulate, p.shared_b, p.epilogue, p.type, p.y_type,
                   p.alpha != nullptr, p.bias ? alignment(p.bias) : 0, align[0], align[1], align[2], align[3],
                   p.aux != nullptr, p.b_type, p.fast};
  std::lock_guard guard(lock);
  auto found = known.find(key);
  if (found != known.end()) return found->second;
  Proposals result = {};
  LtPreference preference = nullptr;
  int status = lt.preference_create(&preference);
  auto prefer = [&](int attribute, const void *value, size_t bytes) {
    if (!status) status = lt.preference_set(preference, attribute, value, bytes);
  };
  prefer(LT_PREFER_WORKSPACE, &kMaxWorkspace, sizeof kMaxWorkspace);
  prefer(LT_PREFER_REDUCTIONS, &kReductions, sizeof kReductions);
  const int attributes[] = {LT_PREFER_ALIGN_A, LT_PREFER_ALIGN_B, LT_PREFER_ALIGN_C, LT_PREFER_ALIGN_D};
  for (int i = 0; i < 4; i++) {
    uint32_t bytes = static_cast<uint32_t>(align[std::min(i, 2)]);
    prefer(attributes[i], &bytes, sizeof bytes);
  }
  if (!status)
    status = lt.heuristic(lt.handle, descriptors.desc, descriptors.a, descriptors.b, descriptors.d, descriptors.d,
                          preference, static_cast<int>(result.list.size()), result.list.data(), &result.count);
  if (preference) lt.preference_destroy(preference);
  if (status) result.count = 0;
  known.emplace(key, result);
  return result;
}

// ZS_UNSUPPORTED, with no message: cuBLASLt has nothing for this.
int32_t multiply(zs_call *call, const CublasLt &lt, const Problem &p) {
  if (p.k == 0) {
    if (p.epilogue != LT_EPILOGUE_NONE) return ZS_UNSUPPORTED;
    if (p.accumulate) return ZS_OK;
    size_t bytes = static_cast<size_t>(p.batch * p.m * p.n * size_of(p.y_type));
    return clear(call->stream, p.y, bytes, call->error);
  }
  Descriptors descriptors(lt);
  descriptors.describe(p);
  if (descriptors.status) return fail(call, ZS_DEVICE_ERROR, "cuBLASLt: %s", lt.status_string(descriptors.status));
  const Proposals proposals = proposed(lt, p, descriptors);
  const float host[2] = {0, 1};
  const void *alpha = p.alpha ? p.alpha : host + 1;
  const float *betas = p.alpha ? lt.constants : host;
  int status = kNotSupported;
  for (int i = 0; i < proposals.count && status == kNotSupported; i++) {
    const LtHeuristic &chosen = proposals.list[static_cast<size_t>(i)];
    if (chosen.state != 0) continue;
    void *workspace = nullptr;
    if (chosen.workspace > 0) {
      Context *context = context_of(call);
      workspace = context->workspace(context, chosen.workspace);
      if (!workspace) return fail(call, ZS_NO_MEMORY, "no work space of %zu bytes", chosen.workspace);
    }
    status = lt.matmul(lt.handle, descriptors.desc, alpha, p.b, descriptors.a, p.a, descriptors.b,
                       betas + (p.accumulate ? 1 : 0), p.y, descriptors.d, p.y, descriptors.d, &chosen.algo,
                       workspace, chosen.workspace, call->stream);
  }
  if (status == kNotSupported) return ZS_UNSUPPORTED;
  if (status != 0) return fail(call, ZS_DEVICE_ERROR, "cuBLASLt: %s", lt.status_string(status));
  return ZS_OK;
}

zs_tensor matrix(const void *data, int64_t rows, int64_t cols, int dtype) {
  zs_tensor made = {};
  made.data = const_cast<void *>(data);
  made.ndim = rows < 0 ? 1 : 2;
  made.dims[0] = rows < 0 ? cols : rows;
  made.dims[1] = rows < 0 ? 0 : cols;
  made.count = (rows < 0 ? 1 : rows) * cols;
  made.dtype = dtype;
  return made;
}

// A kernel of our own behind the product.
int32_t follow(zs_call *call, zs_kernel kernel, const char *name, std::array<zs_tensor, 4> tensors, double scalar) {
  if (!kernel) return fail(call, ZS_UNSUPPORTED, "cuBLASLt refuses this product, and %s is not there", name);
  zs_call next = {tensors.data(), &scalar, call->stream, call->context, ""};
  int32_t status = kernel(&next);
  if (status != ZS_OK) snprintf(call->error, sizeof call->error, "%s: %.200s", name, next.error);
  return status;
}

constexpr zs_tensor kAbsent = {nullptr, 0, {}, 0, -1};

int32_t add_bias(zs_call *call, const Problem &p, const zs_tensor &sum) {
  zs_tensor bias = matrix(p.bias, -1, p.n, p.bias_type);
  if (p.bias_type != p.y_type) {
    Context *context = context_of(call);
    void *wide = context->workspace(context, static_cast<size_t>(p.n) * 4);
    if (!wide) return fail(call, ZS_NO_MEMORY, "no work space for the bias");
    zs_tensor cast_bias = matrix(wide, -1, p.n, p.y_type);
    if (int32_t status = follow(call, cast, "cast", {cast_bias, bias, kAbsent, kAbsent}, 0)) return status;
    bias = cast_bias;
  }
  return follow(call, binary, "binary", {sum, sum, bias, kAbsent}, BINARY_ADD);
}

// The product alone, then what belongs behind it.
int32_t in_steps(zs_call *call, const CublasLt &lt, const Problem &given, int epilogue) {
  Problem p = given;
  const bool gelu = epilogue == EPILOGUE_GELU_TANH || epilogue == EPILOGUE_GELU_ERF;
  const bool dgelu = epilogue == EPILOGUE_DGELU_TANH || epilogue == EPILOGUE_DGELU_ERF;
  const bool erf = epilogue == EPILOGUE_GELU_ERF || epilogue == EPILOGUE_DGELU_ERF;
  const int kind = erf ? UNARY_GELU_ERF : UNARY_GELU_TANH;
  if (dgelu && p.accumulate) return fail(call, ZS_UNSUPPORTED, "matmul: accumulate with dGELU");
  p.epilogue = LT_EPILOGUE_NONE;
  p.aux = nullptr;
  p.bias = nullptr;
  if (gelu && given.aux) p.y = given.aux;  // the sum before the GELU is wanted
  if (int32_t status = multiply(call, lt, p)) {
    if (status == ZS_UNSUPPORTED && !call->error[0])
      return fail(call, ZS_UNSUPPORTED, "cuBLASLt has no algorithm for m %lld, n %lld, k %lld, dtypes %d, %d, %d",
                  static_cast<long long>(p.m), static_cast<long long>(p.n), static_cast<long long>(p.k), p.type, p.b_type,
                  p.y_type);
    return status;
  }
  const zs_tensor sum = matrix(p.y, p.batch * p.m, p.n, p.y_type), y = matrix(given.y, p.batch * p.m, p.n, p.y_type);
  if (given.bias)
    if (int32_t status = add_bias(call, given, sum)) return status;
  if (gelu) return follow(call, unary, "unary", {y, sum, kAbsent, kAbsent}, kind);
  if (!dgelu) return ZS_OK;
  const zs_tensor pre = matrix(given.aux, p.batch * p.m, p.n, p.y_type);
  return follow(call, unary_backward, "unary_backward", {y, y, pre, kAbsent}, kind);
}

// The epilogue in cuBLASLt's words; false: it has none that does this. Its GELU has an error of 1e-4, too much for f32.
bool fused(const Problem &p, int epilogue, int *result) {
  if (p.y_type == ZS_F32 && epilogue != EPILOGUE_NONE) return false;
  const int bias = p.bias ? LT_EPILOGUE_BIAS : 0;
  switch (epilogue) {
    case EPILOGUE_NONE: *result = bias ? bias : LT_EPILOGUE_NONE; return true;
    case EPILOGUE_GELU_TANH: *result = LT_EPILOGUE_GELU | bias | (p.aux ? LT_EPILOGUE_AUX : 0); return true;
    case EPILOGUE_DGELU_TANH: *result = LT_EPILOGUE_DGELU; return !p.accumulate;
    default: return false;
  }
}

}  // namespace

int32_t matmul(zs_call *call) {
  const zs_tensor *t = call->tensors;
  auto integer = [call](int index) { return static_cast<int64_t>(call->scalars[index]); };
  const int epilogue = static_cast<int>(integer(MATMUL_EPILOGUE));
  Problem p = {};
  p.batch = integer(MATMUL_BATCH), p.m = integer(MATMUL_M), p.n = integer(MATMUL_N), p.k = integer(MATMUL_K);
  p.trans_a = integer(MATMUL_TRANS_A) != 0, p.trans_b = integer(MATMUL_TRANS_B) != 0;
  p.accumulate = integer(MATMUL_ACCUMULATE) != 0;
  if (int32_t status = check_matmul(call, p.m, p.n, epilogue, p.accumulate)) return status;
  if (p.batch == 0 || p.m == 0 || p.n == 0) return ZS_OK;
  const CublasLt *lt = cublaslt(call->error);
  if (!lt) return ZS_UNSUPPORTED;
  p.type = p.b_type = p.bias_type = t[MATMUL_A].dtype, p.y_type = t[MATMUL_Y].dtype;
  p.a = t[MATMUL_A].data, p.b = t[MATMUL_B].data, p.y = t[MATMUL_Y].data;
  p.bias = t[MATMUL_BIAS].data, p.alpha = t[MATMUL_ALPHA].data;
  const bool backward = epilogue == EPILOGUE_DGELU_TANH || epilogue == EPILOGUE_DGELU_ERF;
  const bool forward = epilogue == EPILOGUE_GELU_TANH || epilogue == EPILOGUE_GELU_ERF;
  p.aux = backward ? t[MATMUL_PRE_IN].data : forward ? t[MATMUL_PRE].data : nullptr;
  p.shared_b = p.batch > 1 && t[MATMUL_B].count == p.k * p.n;
  if (p.shared_b && !p.trans_a) {  // one tall a
    p.m *= p.batch;
    p.batch = 1;
    p.shared_b = false;
  }
  if (p.k > 0 && fused(p, epilogue, &p.epilogue)) {
    int32_t status = multiply(call, *lt, p);
    if (status != ZS_UNSUPPORTED || call->error[0]) return status;
  }
  return in_steps(call, *lt, p, epilogue);
}

int32_t fp8_matmul(zs_call *call) {
  if (int32_t status = check_fp8_matmul(call)) return status;
  const zs_tensor *t = call->tensors;
  Problem p = {};
  p.batch = 1, p.m = integer(call, FP8_MATMUL_M), p.n = integer(call, FP8_MATMUL_N), p.k = integer(call, FP8_MATMUL_K);
  p.trans_b = true;  // with the exchange of operands: the one layout that Ada and Hopper have
  p.accumulate = integer(call, FP8_MATMUL_ACCUMULATE) != 0, p.fast = integer(call, FP8_MATMUL_FAST) != 0;
  const int capability = context_of(call)->capability;
  if (capability < 89)
    return fail(call, ZS_UNSUPPORTED, "fp8_matmul needs compute capability 8.9 (Ada, Hopper or newer), the device has %d.%d; use bf16",
                capability / 10, capability % 10);
  if (p.n % 16 != 0 || p.k % 16 != 0)
    return fail(call, ZS_UNSUPPORTED, "fp8_matmul: n %lld and k %lld must divide by 16; use bf16",
                static_cast<long long>(p.n), static_cast<long long>(p.k));
  if (p.m == 0 || p.n == 0) return ZS_OK;
  const CublasLt *lt = cublaslt(call->error);
  if (!lt) return ZS_UNSUPPORTED;
  p.type = t[FP8_MATMUL_A].dtype, p.b_type = t[FP8_MATMUL_B].dtype, p.y_type = p.bias_type = t[FP8_MATMUL_Y].dtype;
  p.a = t[FP8_MATMUL_A].data, p.b = t[FP8_MATMUL_B].data, p.y = t[FP8_MATMUL_Y].data, p.bias = t[FP8_MATMUL_BIAS].data;
  p.a_scale = t[FP8_MATMUL_A_INVERSE].data, p.b_scale = t[FP8_MATMUL_B_INVERSE].data;
  if (alignment(p.a_scale) < 16 || alignment(p.b_scale) < 16)
    return fail(call, ZS_BAD_ARGUMENT, "fp8_matmul: a scale must lie at a multiple of 16 bytes");
  if (p.k > 0 && fused(p, EPILOGUE_NONE, &p.epilogue)) {
    int32_t status = multiply(call, *lt, p);
    if (status != ZS_UNSUPPORTED || call->error[0]) return status;
  }
  return in_steps(call, *lt, p, EPILOGUE_NONE);
}

}  // namespace zs::cuda
