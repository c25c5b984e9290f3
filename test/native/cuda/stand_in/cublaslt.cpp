// libcublasLt.so of the stand-in: the functions that libraries/cublaslt.cpp binds, by plain loops on the stream that they
// are queued on. Strict about what it is given: attributes and sizes that it does not know are refused.
#include "../../../../native/backend/cuda/libraries/cublaslt.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "../../../../native/backend/cpu/float16.h"
#include "../shim/fibers.h"

#define ZS_EXPORT extern "C" __attribute__((visibility("default")))

namespace zs::cuda {

struct LtLayoutOpaque {
  int type;
  int64_t rows, cols, ld, stride = 0;
  int32_t batch = 1;
  bool operator==(const LtLayoutOpaque &) const = default;
};
struct LtDescOpaque {
  std::map<int, std::vector<char>> attributes;
  template <class T> T get(int attribute, T otherwise) const {
    auto found = attributes.find(attribute);
    if (found != attributes.end() && found->second.size() == sizeof(T)) memcpy(&otherwise, found->second.data(), sizeof(T));
    return otherwise;
  }
};
struct LtPreferenceOpaque {};

namespace {

constexpr int kInvalid = 7, kNotSupported = 15;
constexpr size_t kWorkspace = 4096;

double get(const void *data, int type, int64_t at) {
  switch (type) {
    case CUDA_TYPE_F32: return static_cast<const float *>(data)[at];
    case CUDA_TYPE_BF16: return cpu::to_float(static_cast<const cpu::bf16 *>(data)[at]);
    default: return cpu::to_float(static_cast<const cpu::f16 *>(data)[at]);
  }
}
void put(void *data, int type, int64_t at, double value) {
  const float x = static_cast<float>(value);
  switch (type) {
    case CUDA_TYPE_F32: static_cast<float *>(data)[at] = x; return;
    case CUDA_TYPE_BF16: static_cast<cpu::bf16 *>(data)[at] = cpu::to_bf16(x); return;
    default: static_cast<cpu::f16 *>(data)[at] = cpu::to_f16(x);
  }
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double slope(double x) { return (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5; }

// One product as it was described when it was queued.
struct Product {
  LtDescOpaque desc;
  LtLayoutOpaque la, lb, ld;
  const void *alpha, *a, *b, *beta;
  void *d;
  float host_alpha, host_beta;

  double sum_of(int64_t batch, int64_t row, int64_t col) const {
    const bool ta = desc.get<int32_t>(LT_DESC_TRANSA, 0), tb = desc.get<int32_t>(LT_DESC_TRANSB, 0);
    const int64_t inner = ta ? la.rows : la.cols;
    double sum = 0;
    for (int64_t k = 0; k < inner; k++)
      sum += get(a, la.type, batch * la.stride + (ta ? k + row * la.ld : row + k * la.ld)) *
             get(b, lb.type, batch * lb.stride + (tb ? col + k * lb.ld : k + col * lb.ld));
    return sum;
  }

  void run() const {
    const bool on_device = desc.get<int32_t>(LT_DESC_POINTER_MODE, 0) == LT_POINTER_MODE_DEVICE;
    const double scale = on_device ? *static_cast<const float *>(alpha) : host_alpha;
    const double keep = on_device ? *static_cast<const float *>(beta) : host_beta;
    const int32_t epilogue = desc.get<int32_t>(LT_DESC_EPILOGUE, LT_EPILOGUE_NONE);
    const void *bias = desc.get<const void *>(LT_DESC_BIAS, nullptr);
    void *aux = desc.get<void *>(LT_DESC_AUX, nullptr);
    const int64_t aux_ld = desc.get<int64_t>(LT_DESC_AUX_LD, 0), aux_stride = desc.get<int64_t>(LT_DESC_AUX_BATCH_STRIDE, 0);
    const int aux_type = desc.get<int32_t>(LT_DESC_AUX_TYPE, ld.type);
    for (int64_t i = 0; i < ld.batch; i++)
      for (int64_t s = 0; s < ld.cols; s++)
        for (int64_t r = 0; r < ld.rows; r++) {
          double sum = scale * sum_of(i, r, s);
          const int64_t at = i * ld.stride + r + s * ld.ld, aux_at = i * aux_stride + r + s * aux_ld;
          if (keep != 0) sum += keep * get(d, ld.type, at);
          if (bias) sum += get(bias, desc.get<int32_t>(LT_DESC_BIAS_TYPE, ld.type), r);
          if (epilogue == LT_EPILOGUE_DGELU) sum *= slope(get(aux, aux_type, aux_at));
          if (aux && epilogue & LT_EPILOGUE_GELU) put(aux, aux_type, aux_at, sum);
          if (epilogue & LT_EPILOGUE_GELU) sum = gelu(sum);
          put(d, ld.type, at, sum);
        }
  }
};

}  // namespace
}  // namespace zs::cuda

using namespace zs::cuda;

ZS_EXPORT int cublasLtCreate(LtHandle *handle) {
  static char one;
  return *handle = reinterpret_cast<LtHandle>(&one), 0;
}
ZS_EXPORT size_t cublasLtGetVersion() { return 130100; }
ZS_EXPORT const char *cublasLtGetStatusString(int status) {
  return status == kInvalid ? "invalid value" : status == kNotSupported ? "not supported" : "success";
}
ZS_EXPORT int cublasLtMatrixLayoutCreate(LtLayout *layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  if (rows == 0 || cols == 0 || ld < static_cast<int64_t>(rows)) return kInvalid;
  *layout = new LtLayoutOpaque{type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld};
  return 0;
}
ZS_EXPORT int cublasLtMatrixLayoutDestroy(LtLayout layout) { return delete layout, 0; }
ZS_EXPORT int cublasLtMatrixLayoutSetAttribute(LtLayout layout, int attribute, const void *value, size_t bytes) {
  if (attribute == LT_LAYOUT_BATCH_COUNT && bytes == sizeof layout->batch) memcpy(&layout->batch, value, bytes);
  else if (attribute == LT_LAYOUT_BATCH_STRIDE && bytes == sizeof layout->stride) memcpy(&layout->stride, value, bytes);
  else return kInvalid;
  return 0;
}
ZS_EXPORT int cublasLtMatmulDescCreate(LtDesc *desc, int compute, int scale) {
  if (compute != LT_COMPUTE_32F || scale != CUDA_TYPE_F32) return kNotSupported;
  return *desc = new LtDescOpaque, 0;
}
ZS_EXPORT int cublasLtMatmulDescDestroy(LtDesc desc) { return delete desc, 0; }
ZS_EXPORT int cublasLtMatmulDescSetAttribute(LtDesc desc, int attribute, const void *value, size_t bytes) {
  const bool wide = attribute == LT_DESC_BIAS || attribute == LT_DESC_AUX || attribute == LT_DESC_AUX_LD ||
                    attribute == LT_DESC_AUX_BATCH_STRIDE;
  if (bytes != (wide ? 8u : 4u)) return kInvalid;
  const char *begin = static_cast<const char *>(value);
  return desc->attributes[attribute].assign(begin, begin + bytes), 0;
}
ZS_EXPORT int cublasLtMatmulPreferenceCreate(LtPreference *made) { return *made = new LtPreferenceOpaque, 0; }
ZS_EXPORT int cublasLtMatmulPreferenceDestroy(LtPreference made) { return delete made, 0; }
ZS_EXPORT int cublasLtMatmulPreferenceSetAttribute(LtPreference, int attribute, const void *, size_t bytes) {
  return bytes == (attribute == LT_PREFER_WORKSPACE ? 8u : 4u) ? 0 : kInvalid;
}

// The real library has no algorithm for addresses that are not aligned to 4 bytes, and none for some epilogues of 16 bits
// with rows that are no multiple of 8: the callers must have another way, which is tried so.
ZS_EXPORT int cublasLtMatmulAlgoGetHeuristic(LtHandle, LtDesc desc, LtLayout, LtLayout, LtLayout, LtLayout d, LtPreference,
                                             int wanted, LtHeuristic *result, int *found) {
  const int32_t epilogue = desc->get<int32_t>(LT_DESC_EPILOGUE, LT_EPILOGUE_NONE);
  *found = wanted >= 1 && (epilogue == LT_EPILOGUE_NONE || d->type == CUDA_TYPE_F32 || d->rows % 8 == 0);
  *result = {};
  result->workspace = kWorkspace;
  return *found ? 0 : kNotSupported;
}

ZS_EXPORT int cublasLtMatmul(LtHandle, LtDesc desc, const void *alpha, const void *a, LtLayout la, const void *b, LtLayout lb,
                             const void *beta, const void *c, LtLayout lc, void *d, LtLayout ld, const LtAlgo *, void *workspace,
                             size_t bytes, void *stream) {
  const bool ta = desc->get<int32_t>(LT_DESC_TRANSA, 0), tb = desc->get<int32_t>(LT_DESC_TRANSB, 0);
  const bool fit = (ta ? la->cols : la->rows) == ld->rows && (tb ? lb->rows : lb->cols) == ld->cols &&
                   (ta ? la->rows : la->cols) == (tb ? lb->cols : lb->rows) && la->batch == ld->batch && lb->batch == ld->batch;
  if (!fit || c != d || !(*lc == *ld) || !workspace || bytes < kWorkspace || !stream) return kInvalid;
  Product product{*desc, *la, *lb, *ld, alpha, a, b, beta, d, 1, 0};
  if (desc->get<int32_t>(LT_DESC_POINTER_MODE, 0) != LT_POINTER_MODE_DEVICE) {
    product.host_alpha = *static_cast<const float *>(alpha);
    product.host_beta = *static_cast<const float *>(beta);
  }
  static_cast<zs::shim::Stream *>(stream)->add([product] { product.run(); });
  return 0;
}
