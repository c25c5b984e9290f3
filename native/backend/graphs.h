/* Graphs as a backend offers them: work that is recorded once and launched many times, part of the ABI of backend.h.
 * What changes from launch to launch are the scalars of calls that were recorded by record(): the launchers run again
 * with other scalars, and what they would launch becomes the parameters of what they launched. So one piece of code
 * serves both ways, with the same bits. `error` as in backend.h. */
#ifndef ZS_GRAPHS_H
#define ZS_GRAPHS_H
#include "backend.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zs_graphs {
  uint32_t struct_size;
  /* What is queued on the stream from now on, and on streams that come to wait for it, is recorded and not done. Only
   * one thread at a time may queue. The stream is idle. */
  int32_t (*begin)(zs_stream *stream, char *error);
  /* Ends it, whatever went wrong in between. The stream has waited for all others that joined. */
  int32_t (*end)(zs_stream *stream, void **graph, char *error);
  /* Within it: runs a kernel whose scalars may change. `place`, to be forgotten, stands for the call in set(). */
  int32_t (*record)(zs_stream *stream, zs_kernel kernel, zs_call *call, void **place);
  void (*forget)(void *place);
  /* The graph's next launches run this call with these scalars; tensors are what they were. Those under way go on. */
  int32_t (*set)(void *graph, void *place, zs_kernel kernel, zs_call *call);
  int32_t (*launch)(void *graph, zs_stream *stream, char *error); /* queued, as one piece of work */
  void (*destroy)(void *graph);                                   /* when no launch is under way */
};

#ifdef __cplusplus
}
#endif
#endif
