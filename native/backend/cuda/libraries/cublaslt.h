// What is used of cuBLASLt, declared by us (its header is not needed to build): names and values as in cublasLt.h of
// version 13.1; 12 has the same.
#pragma once
#include <cstddef>
#include <cstdint>

namespace zs::cuda {

enum { CUDA_TYPE_F32 = 0, CUDA_TYPE_F16 = 2, CUDA_TYPE_BF16 = 14, CUDA_TYPE_E4M3 = 28, CUDA_TYPE_E5M2 = 29 };
enum { LT_COMPUTE_32F = 68, LT_OP_N = 0, LT_OP_T = 1, LT_POINTER_MODE_DEVICE = 1 };
enum { LT_LAYOUT_BATCH_COUNT = 5, LT_LAYOUT_BATCH_STRIDE = 6 };
enum { LT_DESC_POINTER_MODE = 2, LT_DESC_TRANSA = 3, LT_DESC_TRANSB = 4, LT_DESC_EPILOGUE = 7, LT_DESC_BIAS = 8,
       LT_DESC_AUX = 11, LT_DESC_AUX_LD = 12, LT_DESC_AUX_BATCH_STRIDE = 13, LT_DESC_AUX_TYPE = 22,
       LT_DESC_BIAS_TYPE = 26, LT_DESC_A_SCALE = 17, LT_DESC_B_SCALE = 18, LT_DESC_FAST_ACCUM = 25 };
enum { LT_PREFER_WORKSPACE = 1, LT_PREFER_REDUCTIONS = 3, LT_PREFER_ALIGN_A = 5, LT_PREFER_ALIGN_B = 6, LT_PREFER_ALIGN_C = 7,
       LT_PREFER_ALIGN_D = 8 };
enum { LT_EPILOGUE_NONE = 1, LT_EPILOGUE_BIAS = 4, LT_EPILOGUE_GELU = 32, LT_EPILOGUE_AUX = 128,
       LT_EPILOGUE_DGELU = 64 | 128 };

using LtHandle = struct LtHandleOpaque *;
using LtLayout = struct LtLayoutOpaque *;
using LtDesc = struct LtDescOpaque *;
using LtPreference = struct LtPreferenceOpaque *;
struct LtAlgo {
  uint64_t data[8];
};
struct LtHeuristic {
  LtAlgo algo;
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

struct CublasLt {
  LtHandle handle;
  const float *constants;  // on the device: 0 and 1
  const char *(*status_string)(int status);
  int (*layout_create)(LtLayout *layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
  int (*layout_destroy)(LtLayout layout);
  int (*layout_set)(LtLayout layout, int attribute, const void *value, size_t bytes);
  int (*desc_create)(LtDesc *desc, int compute, int scale_type);
  int (*desc_destroy)(LtDesc desc);
  int (*desc_set)(LtDesc desc, int attribute, const void *value, size_t bytes);
  int (*preference_create)(LtPreference *preference);
  int (*preference_destroy)(LtPreference preference);
  int (*preference_set)(LtPreference preference, int attribute, const void *value, size_t bytes);
  int (*heuristic)(LtHandle handle, LtDesc desc, LtLayout a, LtLayout b, LtLayout c, LtLayout d,
                   LtPreference preference, int wanted, LtHeuristic *results, int *found);
  int (*matmul)(LtHandle handle, LtDesc desc, const void *alpha, const void *a, LtLayout a_layout, const void *b,
                LtLayout b_layout, const void *beta, const void *c, LtLayout c_layout, void *d, LtLayout d_layout,
                const LtAlgo *algo, void *workspace, size_t workspace_bytes, void *stream);
};

// Opens the library and makes a handle of the device, once. nullptr: `error` (of ZS_ERROR_BYTES) says why.
const CublasLt *cublaslt(char *error);

}  // namespace zs::cuda
