// What is used of cuDNN's backend API, declared by us (its headers are not needed to build): names and values as in
// cudnn_graph_v9.h of version 9.24.
#pragma once
#include <cstddef>
#include <cstdint>

namespace zs::cuda {

// Older ones: 9.10 computes wrong gradients. Up to 9.15 a padding mask is wanted where the keys are no multiple of 128.
inline constexpr size_t kCudnnLeast = 91400, kCudnnAnyKeys = 91600;

enum { DNN_FLOAT = 0, DNN_HALF = 2, DNN_INT32 = 4, DNN_BFLOAT16 = 9, DNN_BOOLEAN = 11 };
// Descriptors.
enum { DNN_POINTWISE = 0, DNN_ENGINE = 2, DNN_ENGINECFG = 3, DNN_ENGINEHEUR = 4, DNN_EXECUTION_PLAN = 5,
       DNN_OPERATION_POINTWISE = 13, DNN_OPERATIONGRAPH = 15, DNN_VARIANT_PACK = 16, DNN_TENSOR = 17, DNN_MATMUL = 18,
       DNN_OPERATION_MATMUL = 19, DNN_REDUCTION = 21, DNN_OPERATION_REDUCTION = 22, DNN_OPERATION_RESHAPE = 31,
       DNN_DEVICEPROP = 38 };
// Types of attributes.
enum { DNN_TYPE_HANDLE = 0, DNN_TYPE_DATA_TYPE = 1, DNN_TYPE_BOOLEAN = 2, DNN_TYPE_INT64 = 3, DNN_TYPE_VOID_PTR = 6,
       DNN_TYPE_HEUR_MODE = 8, DNN_TYPE_NUMERICAL_NOTE = 11, DNN_TYPE_POINTWISE_MODE = 14,
       DNN_TYPE_BACKEND_DESCRIPTOR = 15, DNN_TYPE_REDUCTION_OPERATOR_TYPE = 18, DNN_TYPE_CHAR = 24 };
// Attributes.
enum { DNN_ATTR_POINTWISE_MODE = 0, DNN_ATTR_POINTWISE_MATH_PREC = 1, DNN_ATTR_POINTWISE_AXIS = 9,
       DNN_ATTR_ENGINEHEUR_MODE = 200, DNN_ATTR_ENGINEHEUR_OPERATION_GRAPH = 201, DNN_ATTR_ENGINEHEUR_RESULTS = 202,
       DNN_ATTR_ENGINEHEUR_DEVICEPROP = 204, DNN_ATTR_ENGINECFG_ENGINE = 300, DNN_ATTR_EXECUTION_PLAN_HANDLE = 400,
       DNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG = 401, DNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE = 402,
       DNN_ATTR_EXECUTION_PLAN_DEVICEPROP = 407, DNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR = 750,
       DNN_ATTR_OPERATION_POINTWISE_XDESC = 751, DNN_ATTR_OPERATION_POINTWISE_BDESC = 752,
       DNN_ATTR_OPERATION_POINTWISE_YDESC = 753, DNN_ATTR_OPERATION_POINTWISE_TDESC = 758,
       DNN_ATTR_OPERATIONGRAPH_HANDLE = 800, DNN_ATTR_OPERATIONGRAPH_OPS = 801, DNN_ATTR_TENSOR_BYTE_ALIGNMENT = 900,
       DNN_ATTR_TENSOR_DATA_TYPE = 901, DNN_ATTR_TENSOR_DIMENSIONS = 902, DNN_ATTR_TENSOR_STRIDES = 903,
       DNN_ATTR_TENSOR_UNIQUE_ID = 906, DNN_ATTR_TENSOR_IS_VIRTUAL = 907, DNN_ATTR_TENSOR_IS_BY_VALUE = 908,
       DNN_ATTR_VARIANT_PACK_UNIQUE_IDS = 1000, DNN_ATTR_VARIANT_PACK_DATA_POINTERS = 1001,
       DNN_ATTR_VARIANT_PACK_WORKSPACE = 1003, DNN_ATTR_ENGINE_NUMERICAL_NOTE = 1303, DNN_ATTR_MATMUL_COMP_TYPE = 1500,
       DNN_ATTR_OPERATION_MATMUL_ADESC = 1520, DNN_ATTR_OPERATION_MATMUL_BDESC = 1521,
       DNN_ATTR_OPERATION_MATMUL_CDESC = 1522, DNN_ATTR_OPERATION_MATMUL_DESC = 1523,
       DNN_ATTR_REDUCTION_OPERATOR = 1600, DNN_ATTR_REDUCTION_COMP_TYPE = 1601,
       DNN_ATTR_OPERATION_REDUCTION_XDESC = 1610, DNN_ATTR_OPERATION_REDUCTION_YDESC = 1611,
       DNN_ATTR_OPERATION_REDUCTION_DESC = 1612, DNN_ATTR_OPERATION_RESHAPE_XDESC = 2200,
       DNN_ATTR_OPERATION_RESHAPE_YDESC = 2201, DNN_ATTR_DEVICEPROP_JSON_REPRESENTATION = 2702 };
enum { DNN_POINTWISE_ADD = 0, DNN_POINTWISE_MUL = 1, DNN_POINTWISE_DIV = 6, DNN_POINTWISE_SUB = 9,
       DNN_POINTWISE_EXP = 13, DNN_POINTWISE_LOG = 15, DNN_POINTWISE_CMP_GE = 303, DNN_POINTWISE_GEN_INDEX = 501,
       DNN_POINTWISE_BINARY_SELECT = 601 };
enum { DNN_REDUCE_TENSOR_ADD = 0, DNN_REDUCE_TENSOR_MAX = 3 };
enum { DNN_HEUR_MODE_A = 3, DNN_NUMERICAL_NOTE_NONDETERMINISTIC = 4, DNN_NUMERICAL_NOTE_TYPE_COUNT = 10 };

using DnnHandle = struct DnnHandleOpaque *;
using DnnDescriptor = void *;

struct Cudnn {
  const char *(*error_string)(int status);
  void (*last_error)(char *message, size_t bytes);
  int (*create)(DnnHandle *handle);
  int (*set_stream)(DnnHandle handle, void *stream);
  int (*descriptor_create)(int type, DnnDescriptor *descriptor);
  int (*descriptor_destroy)(DnnDescriptor descriptor);
  int (*finalize)(DnnDescriptor descriptor);
  int (*set)(DnnDescriptor descriptor, int attribute, int type, int64_t count, const void *values);
  int (*get)(DnnDescriptor descriptor, int attribute, int type, int64_t room, int64_t *count, void *values);
  int (*execute)(DnnHandle handle, DnnDescriptor plan, DnnDescriptor pack);
  size_t version = kCudnnAnyKeys;
};

// Opens the library, once; makes no handle, so that no device is needed. nullptr: `error` (of ZS_ERROR_BYTES) says why.
const Cudnn *cudnn(char *error);

}  // namespace zs::cuda
