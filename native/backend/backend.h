/* The C ABI between the core and a backend (CPU in the addon itself; CUDA in its own shared object).
 * No C++ type crosses it. A backend fills one zs_backend and one table of kernels, indexed by zs_op.
 * Kernels run on a stream in order; the core guarantees that no two of them race on a storage. */
#ifndef ZS_BACKEND_H
#define ZS_BACKEND_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ZS_BACKEND_ABI 1
#define ZS_MAX_DIMS 8

typedef enum { ZS_F32 = 0, ZS_BF16 = 1, ZS_F16 = 2, ZS_I32 = 3, ZS_U8 = 4, ZS_I64 = 5 } zs_dtype;

/* Operations, in the order of ops.def: ZS_OP_matmul, ... */
typedef enum {
#define ZS_OP(name, outputs, inputs, scalars) ZS_OP_##name,
#include "../ops/ops.def"
#undef ZS_OP
  ZS_OP_COUNT
} zs_op;

/* A dense row-major range. An absent optional tensor has data == NULL and count == 0, dtype -1. */
typedef struct {
  void *data;
  int64_t count; /* elements */
  int64_t dims[ZS_MAX_DIMS];
  int32_t ndim;
  int32_t dtype;
} zs_tensor;

/* One call of a kernel. Tensors: outputs (and in-place arguments) first, then inputs, in the order of
 * the op's header; scalars likewise. All are borrowed for the duration of the call. */
typedef struct {
  const zs_tensor *tensors;
  const double *scalars;
  void *stream;    /* backend's stream: cudaStream_t on CUDA, unused on the CPU */
  void *context;   /* backend's own context: the thread pool on the CPU */
  char error[256]; /* filled by a kernel that returns non-zero */
} zs_call;

typedef int32_t (*zs_kernel)(zs_call *call); /* 0, or a zs_status */

typedef enum { ZS_OK = 0, ZS_BAD_ARGUMENT = 1, ZS_NO_MEMORY = 2, ZS_UNSUPPORTED = 3, ZS_DEVICE_ERROR = 4 } zs_status;

typedef struct {
  uint32_t abi;         /* ZS_BACKEND_ABI */
  uint32_t struct_size; /* sizeof(zs_backend) */
  const char *name;     /* "cpu", "cuda" */
  /* Device memory; aligned to 64 bytes at least. NULL when there is none left. */
  void *(*allocate)(size_t bytes);
  void (*release)(void *data, size_t bytes);
  /* Indexed by zs_op; NULL where the backend lacks the kernel (the core says which). */
  const zs_kernel *kernels;
  uint32_t num_kernels;
} zs_backend;

#ifdef __cplusplus
}
#endif
#endif
