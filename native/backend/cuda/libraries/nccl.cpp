#include "nccl.h"

#include <string>

#include "find.h"

namespace zs::cuda {

namespace {

Bound<Nccl> make() {
  Bound<Nccl> made;
  const Opened &library = open_library(Library::nccl);
  if (!library.handle) return {{}, library.reason};
  std::string missing;
  Nccl &n = made.functions;
  bind(Library::nccl, n.error_string, "ncclGetErrorString", missing);
  bind(Library::nccl, n.last_error, "ncclGetLastError", missing);
  bind(Library::nccl, n.unique_id, "ncclGetUniqueId", missing);
  bind(Library::nccl, n.init, "ncclCommInitRankConfig", missing);
  bind(Library::nccl, n.split, "ncclCommSplit", missing);
  bind(Library::nccl, n.shrink, "ncclCommShrink", missing);
  bind(Library::nccl, n.async_error, "ncclCommGetAsyncError", missing);
  bind(Library::nccl, n.destroy, "ncclCommDestroy", missing);
  bind(Library::nccl, n.abort, "ncclCommAbort", missing);
  bind(Library::nccl, n.group_start, "ncclGroupStart", missing);
  bind(Library::nccl, n.group_end, "ncclGroupEnd", missing);
  bind(Library::nccl, n.all_reduce, "ncclAllReduce", missing);
  bind(Library::nccl, n.reduce_scatter, "ncclReduceScatter", missing);
  bind(Library::nccl, n.all_gather, "ncclAllGather", missing);
  bind(Library::nccl, n.broadcast, "ncclBroadcast", missing);
  bind(Library::nccl, n.send, "ncclSend", missing);
  bind(Library::nccl, n.recv, "ncclRecv", missing);
  bind(Library::nccl, n.version, "ncclGetVersion", missing);
  std::string optional;
  bind(Library::nccl, n.mem_alloc, "ncclMemAlloc", optional);
  bind(Library::nccl, n.mem_free, "ncclMemFree", optional);
  bind(Library::nccl, n.add, "ncclCommRegister", optional);
  bind(Library::nccl, n.drop, "ncclCommDeregister", optional);
  bind(Library::nccl, n.add_window, "ncclCommWindowRegister", optional);
  bind(Library::nccl, n.drop_window, "ncclCommWindowDeregister", optional);
  if (!optional.empty()) n.mem_alloc = nullptr;
  if (!missing.empty())
    made.reason = "NCCL " + library.version + " at " + library.path + " has no " + missing +
                  "; 2.27 or newer is needed";
  return made;
}

}  // namespace

const Nccl *nccl(char *error) {
  static const Bound<Nccl> made = make();
  return made.get(error);
}

}  // namespace zs::cuda
