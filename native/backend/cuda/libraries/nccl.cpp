#include "nccl.h"

#include <cstdio>
#include <string>

#include "find.h"

namespace zs::cuda {

namespace {

struct Made {
  Nccl nccl = {};
  std::string reason;
};

template <class Function>
void bind(Function &into, const char *name, std::string &missing) {
  into = reinterpret_cast<Function>(symbol(Library::nccl, name));
  if (!into && missing.empty()) missing = name;
}

Made make() {
  Made made;
  const Opened &library = open_library(Library::nccl);
  if (!library.handle) return {{}, library.reason};
  std::string missing;
  Nccl &n = made.nccl;
  bind(n.error_string, "ncclGetErrorString", missing);
  bind(n.last_error, "ncclGetLastError", missing);
  bind(n.unique_id, "ncclGetUniqueId", missing);
  bind(n.init, "ncclCommInitRankConfig", missing);
  bind(n.split, "ncclCommSplit", missing);
  bind(n.shrink, "ncclCommShrink", missing);
  bind(n.async_error, "ncclCommGetAsyncError", missing);
  bind(n.destroy, "ncclCommDestroy", missing);
  bind(n.abort, "ncclCommAbort", missing);
  bind(n.group_start, "ncclGroupStart", missing);
  bind(n.group_end, "ncclGroupEnd", missing);
  bind(n.all_reduce, "ncclAllReduce", missing);
  bind(n.reduce_scatter, "ncclReduceScatter", missing);
  bind(n.all_gather, "ncclAllGather", missing);
  bind(n.broadcast, "ncclBroadcast", missing);
  bind(n.send, "ncclSend", missing);
  bind(n.recv, "ncclRecv", missing);
  if (!missing.empty())
    made.reason = "NCCL " + library.version + " at " + library.path + " has no " + missing +
                  "; 2.27 or newer is needed";
  return made;
}

}  // namespace

const Nccl *nccl(char *error) {
  static const Made made = make();
  if (made.reason.empty()) return &made.nccl;
  snprintf(error, ZS_ERROR_BYTES, "%s", made.reason.c_str());
  return nullptr;
}

}  // namespace zs::cuda
