/* Collectives between devices as a backend offers them: NCCL behind a C table, part of the ABI of backend.h.
 * A communicator is made in the background: busy() tells when it can be used. One thread at a time per communicator;
 * abort() from any. `error` as in backend.h. */
#ifndef ZS_COLLECTIVES_H
#define ZS_COLLECTIVES_H
#include "backend.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ZS_UNIQUE_ID_BYTES 128

/* In the order of native/comm/group.h. */
typedef enum { ZS_BARRIER, ZS_ALL_REDUCE, ZS_REDUCE_SCATTER, ZS_ALL_GATHER, ZS_BROADCAST, ZS_ALL_TO_ALL, ZS_SEND, ZS_RECV
} zs_collective_kind;

typedef struct {
  int32_t kind, dtype;
  void *output;
  const void *input;
  int64_t count; /* as in CollectiveCall: of the whole array, or per rank */
  int32_t peer;
  int32_t average; /* else the sum */
} zs_exchange;

struct zs_collectives {
  uint32_t struct_size;
  int32_t (*open)(char *error); /* the library is there, and new enough */
  int32_t (*unique_id)(char *id, char *error);
  int32_t (*create)(int32_t size, int32_t rank, const char *id, void **communicator, char *error);
  /* All ranks but those left out call it; with none left out, another communicator of the same ranks. */
  int32_t (*part)(void *communicator, int32_t size, int32_t rank, const int32_t *left_out, int32_t num_left_out,
                  void **made, char *error);
  int32_t (*busy)(void *communicator, int32_t *busy, char *error); /* still being made, or queueing */
  int32_t (*run)(void *communicator, int32_t size, const zs_exchange *exchange, const zs_stream *stream, char *error);
  /* What went wrong in the background, and seconds that the oldest exchange has been under way (0: none is). */
  int32_t (*watch)(void *communicator, double *seconds, char *error);
  void (*abort)(void *communicator);   /* what is under way ends, unfinished; then destroy() */
  void (*destroy)(void *communicator);
  /* Communicators made from now on leave copies to the device's copy engines where they can; ZS_UNSUPPORTED where the
   * library cannot. */
  int32_t (*use_copy_engines)(char *error);
  /* Memory that communicators may be told of, to exchange what lies there without copies of their own. */
  void *(*allocate)(size_t bytes); /* NULL where there is none left, or the library has no such memory */
  void (*release)(void *data, size_t bytes);
  /* `symmetric`: all ranks call it together, each with as many bytes, nothing under way; ranges of it then take part
   * in an exchange at the same place on all ranks. Else one rank alone may call it. */
  int32_t (*add_memory)(void *communicator, void *data, size_t bytes, int32_t symmetric, void **handle, char *error);
  void (*drop_memory)(void *communicator, void *handle, int32_t symmetric); /* called as add_memory was */
};

#ifdef __cplusplus
}
#endif
#endif
