// In place of graphs.cpp: the stand-in captures nothing, and says so.
#include "../../../../native/backend/graphs.h"

#include <cstdio>

#include "../../../../native/backend/cuda/backend.h"

namespace zs::cuda {

namespace {
int32_t begin(zs_stream *, char *error) {
  snprintf(error, ZS_ERROR_BYTES, "the stand-in for CUDA captures no graphs");
  return ZS_UNSUPPORTED;
}
int32_t end(zs_stream *stream, void **, char *error) { return begin(stream, error); }
int32_t record(zs_stream *, zs_kernel, zs_call *, void **) { return ZS_UNSUPPORTED; }
void forget(void *) {}
int32_t set(void *, void *, zs_kernel, zs_call *) { return ZS_UNSUPPORTED; }
int32_t launch(void *, zs_stream *stream, char *error) { return begin(stream, error); }
void destroy(void *) {}
}  // namespace

const zs_graphs graphs{sizeof(zs_graphs), begin, end, record, forget, set, launch, destroy};
bool graphs_alive() { return false; }

}  // namespace zs::cuda
