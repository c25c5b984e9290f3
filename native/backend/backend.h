/* The C ABI between the core and a backend (CPU in the addon itself; CUDA in its own shared object).
 * No C++ type crosses it. A backend fills one zs_backend and one table of kernels, indexed by zs_op.
 * Kernels run on a stream in order; the core guarantees that no two of them race on a storage.
 * On a device (host_memory 0) a kernel is launched when it returns, not done, and no host code touches a
 * tensor's data: they travel by copy(). */
#ifndef ZS_BACKEND_H
#define ZS_BACKEND_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ZS_BACKEND_ABI 3
#define ZS_ERROR_BYTES 256 /* what `error` of every function below has room for */
#define ZS_MAX_DIMS 8

typedef enum { ZS_F32 = 0, ZS_BF16 = 1, ZS_F16 = 2, ZS_I32 = 3, ZS_U8 = 4, ZS_I64 = 5,
               ZS_F8E4M3 = 6, ZS_F8E5M2 = 7 } zs_dtype;

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
  void *stream;    /* cudaStream_t on CUDA, unused on the CPU */
  void *context;   /* the thread pool on the CPU; on CUDA the stream's zs::cuda::Context */
  char error[256]; /* filled by a kernel that returns non-zero */
} zs_call;

typedef int32_t (*zs_kernel)(zs_call *call); /* 0, or a zs_status */

typedef enum { ZS_OK = 0, ZS_BAD_ARGUMENT = 1, ZS_NO_MEMORY = 2, ZS_UNSUPPORTED = 3, ZS_DEVICE_ERROR = 4 } zs_status;

/* A stream of the device: what its kernels get. One thread at a time uses it. */
typedef struct {
  void *native;  /* zs_call.stream */
  void *context; /* zs_call.context */
} zs_stream;

/* Host memory is pinned where host_allocate gave it; any other goes through the backend's own. */
typedef enum {
  ZS_TO_DEVICE = 0,        /* the source may change once copy() has returned */
  ZS_TO_HOST = 1,          /* the target is there when copy() has returned: waits for the stream */
  ZS_ON_DEVICE = 2,        /* queued */
  ZS_TO_DEVICE_PINNED = 3, /* queued: the source stays as it is until the stream has passed */
  ZS_TO_HOST_PINNED = 4    /* queued: the target is there once the stream has passed */
} zs_direction;

typedef struct {
  char name[128];
  uint64_t total_bytes, free_bytes;
  int32_t capability;     /* 90 for 9.0 */
  int32_t multiprocessors;
  int32_t driver, runtime; /* 13000 for 13.0 */
  int32_t index;
  char uuid[40];           /* the same for all processes that use this device */
} zs_device_info;

/* A library of the system that the backend opens at need. path is empty where none was found; note then names
 * the package that brings it, and what is missing without it; else perhaps what it is used for, and why. */
typedef struct {
  char name[32];
  char version[32];
  char path[512];
  char note[512];
} zs_library_info;

typedef struct zs_collectives zs_collectives; /* collectives.h */
typedef struct zs_graphs zs_graphs;           /* graphs.h */

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

  uint32_t host_memory; /* 1: the host reads and writes tensors' data, a kernel is done when it returns, and all
                         * that follows is NULL */
  /* All return 0 or a zs_status with `error` filled; any thread may call them, for different streams at once. */
  int32_t (*attach)(char *error); /* called first by each thread that will launch kernels */
  int32_t (*stream_create)(int32_t high_priority, zs_stream *stream, char *error);
  void (*stream_destroy)(zs_stream *stream); /* what is queued ends first */
  /* An event: all that is queued on the stream now. Of a pool; released, it may be waited for still. */
  int32_t (*event_record)(zs_stream *stream, void **event, char *error);
  int32_t (*stream_wait)(zs_stream *stream, void *event, char *error); /* queued from now on: after the event */
  void (*event_release)(void *event);
  /* Returns when the event has passed; tells what stream_synchronize() of its stream would. Beside the thread that uses
   * the stream. */
  int32_t (*event_wait)(zs_stream *stream, void *event, char *error);
  /* Returns when all that is queued is done. Tells what kernels found wrong with their data, and what went
   * wrong on the device since the last call; "[op] ..." where the op is known. */
  int32_t (*stream_synchronize)(zs_stream *stream, char *error);
  int32_t (*synchronize)(char *error); /* all streams, and the memory given back */
  int32_t (*copy)(zs_stream *stream, void *target, const void *source, size_t bytes, int32_t direction, char *error);
  int32_t (*zero)(zs_stream *stream, void *target, size_t bytes, char *error);
  void *(*host_allocate)(size_t bytes); /* pinned; NULL when there is none left */
  void (*host_release)(void *data, size_t bytes);
  /* Device -1: the opened one. ZS_BAD_ARGUMENT: past the last. */
  int32_t (*device_info)(int32_t device, zs_device_info *info, char *error);
  int32_t (*library_info)(int32_t index, zs_library_info *info); /* ZS_BAD_ARGUMENT past the last */
  const zs_collectives *collectives; /* between devices; NULL: none */
  const zs_graphs *graphs;           /* NULL: none */
  /* A moment: the stream's place now, whose time by the device's clock is kept when the device comes to it. */
  int32_t (*moment_record)(zs_stream *stream, void **moment, char *error);
  /* From one moment to another, of any streams; NaN while the device has not come to both. */
  int32_t (*moment_between)(void *from, void *to, double *nanoseconds, char *error);
  void (*moment_release)(void *moment);
} zs_backend;

/* What a backend's shared object exports. NULL where there is no such device or no driver, which is no fault: the
 * reason and the cure are in `error`. `abi`: the caller's ZS_BACKEND_ABI. The table lives as long as the process;
 * a process opens one device. Device -1 opens none: of the table only device_info and library_info may be called. */
typedef const zs_backend *(*zs_backend_open_function)(uint32_t abi, int32_t device, char *error, size_t error_bytes);
#define ZS_BACKEND_OPEN "zs_backend_open"

#ifdef __cplusplus
}
#endif
#endif
