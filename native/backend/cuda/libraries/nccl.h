// What is used of NCCL, declared by us (its header is not needed to build): names and values as in nccl.h of 2.30;
// the configuration is that of 2.27, whose size tells any later version how much of it there is.
#pragma once
#include <climits>
#include <cstddef>
#include <cstdint>

namespace zs::cuda {

enum { NCCL_OK = 0, NCCL_IN_PROGRESS = 7 };
enum { NCCL_U8 = 1, NCCL_I32 = 2, NCCL_I64 = 4, NCCL_F16 = 6, NCCL_F32 = 7, NCCL_BF16 = 9 };
enum { NCCL_SUM = 0, NCCL_AVERAGE = 4 };
enum { NCCL_SYMMETRIC_WINDOW = 1 };
enum { NCCL_POLICY_ZERO = 2 };  // of CTAs: none where a copy engine does; from 2.28 on

using NcclComm = struct NcclCommOpaque *;
struct NcclId {
  char bytes[128];
};

struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned int magic = 0xcafebeef;
  unsigned int version = 22700;
  int blocking = 0;
  int cga_cluster_size = INT_MIN;
  int min_ctas = INT_MIN;
  int max_ctas = INT_MIN;
  const char *net_name = nullptr;
  int split_share = INT_MIN;
  int traffic_class = INT_MIN;
  const char *comm_name = nullptr;
  int collnet_enable = INT_MIN;
  int cta_policy = INT_MIN;
  int shrink_share = INT_MIN;
  int nvls_ctas = INT_MIN;
};

using NcclWindow = struct NcclWindowOpaque *;

struct Nccl {
  const char *(*error_string)(int result);
  const char *(*last_error)(NcclComm comm);
  int (*unique_id)(NcclId *id);
  int (*init)(NcclComm *comm, int ranks, NcclId id, int rank, NcclConfig *config);
  int (*split)(NcclComm comm, int color, int key, NcclComm *made, NcclConfig *config);
  int (*shrink)(NcclComm comm, int *left_out, int count, NcclComm *made, NcclConfig *config, int flags);
  int (*async_error)(NcclComm comm, int *result);
  int (*destroy)(NcclComm comm);
  int (*abort)(NcclComm comm);
  int (*group_start)();
  int (*group_end)();
  int (*all_reduce)(const void *in, void *out, size_t count, int type, int op, NcclComm comm, void *stream);
  int (*reduce_scatter)(const void *in, void *out, size_t count, int type, int op, NcclComm comm, void *stream);
  int (*all_gather)(const void *in, void *out, size_t count, int type, NcclComm comm, void *stream);
  int (*broadcast)(const void *in, void *out, size_t count, int type, int root, NcclComm comm, void *stream);
  int (*send)(const void *data, size_t count, int type, int peer, NcclComm comm, void *stream);
  int (*recv)(void *data, size_t count, int type, int peer, NcclComm comm, void *stream);
  int (*version)(int *version);  // 23007 for 2.30.7
  // All or none of them (2.27 on); nullptr: there are none.
  int (*mem_alloc)(void **data, size_t bytes);
  int (*mem_free)(void *data);
  int (*add)(NcclComm comm, void *data, size_t bytes, void **handle);
  int (*drop)(NcclComm comm, void *handle);
  int (*add_window)(NcclComm comm, void *data, size_t bytes, NcclWindow *window, int flags);
  int (*drop_window)(NcclComm comm, NcclWindow window);
};

// Opens the library, once. nullptr: `error` (of ZS_ERROR_BYTES) says why.
const Nccl *nccl(char *error);

}  // namespace zs::cuda
