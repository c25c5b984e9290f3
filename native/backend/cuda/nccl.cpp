// NCCL behind collectives.h: communicators that do not block, exchanges queued on a stream, an event behind each so
// that one which takes too long is found out. Who may call what when, and what a time-out does, is decided by
// native/comm/device.
#include "nccl.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "backend.h"
#include "libraries/nccl.h"

namespace zs::cuda {

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kCopyEngines = 22800;  // NCCL's version
constexpr int kTurns = 1000;  // looks without sleep; queueing takes microseconds

struct Communicator {
  NcclComm comm = nullptr;
  std::mutex use;  // NCCL's calls on it, of which abort() frees it
  std::atomic<bool> aborted{false};
  bool queueing = false;
  Clock::time_point queueing_since;
  std::mutex lock;  // of what is under way: the watcher looks while others queue
  struct Exchange {
    cudaEvent_t done;
    Clock::time_point since;
  };
  std::deque<Exchange> under_way;
  std::vector<cudaEvent_t> events;
};

std::atomic<bool> copy_engines{false};

Communicator &of(void *communicator) { return *static_cast<Communicator *>(communicator); }

int32_t answer(const Nccl &n, NcclComm comm, int result, const char *what, char *error) {
  if (result == NCCL_OK || result == NCCL_IN_PROGRESS) return ZS_OK;
  const char *more = n.last_error(comm);
  snprintf(error, ZS_ERROR_BYTES, "%s: %s%s%.150s", what, n.error_string(result), more && more[0] ? ": " : "",
           more ? more : "");
  return ZS_DEVICE_ERROR;
}

int32_t open(char *error) { return nccl(error) ? ZS_OK : ZS_UNSUPPORTED; }

int32_t unique_id(char *id, char *error) {
  const Nccl *n = nccl(error);
  if (!n) return ZS_UNSUPPORTED;
  NcclId made;
  if (int32_t status = answer(*n, nullptr, n->unique_id(&made), "ncclGetUniqueId", error)) return status;
  memcpy(id, made.bytes, sizeof made.bytes);
  return ZS_OK;
}

template <class Make>
int32_t made_by(const Nccl &n, const char *what, void **communicator, char *error, Make make) {
  if (int32_t status = check(use_device(), error, "cudaSetDevice")) return status;
  Communicator *made = new (std::nothrow) Communicator;
  if (!made) return check(cudaErrorMemoryAllocation, error, what);
  NcclConfig config;
  if (copy_engines.load()) config.cta_policy = NCCL_POLICY_ZERO;
  int32_t status = answer(n, nullptr, make(&made->comm, &config), what, error);
  if (status == ZS_OK) *communicator = made;
  else delete made;
  return status;
}

int32_t create(int32_t size, int32_t rank, const char *id, void **communicator, char *error) {
  const Nccl *n = nccl(error);
  if (!n) return ZS_UNSUPPORTED;
  NcclId given;
  memcpy(given.bytes, id, sizeof given.bytes);
  return made_by(*n, "ncclCommInitRankConfig", communicator, error,
                 [&](NcclComm *comm, NcclConfig *config) { return n->init(comm, size, given, rank, config); });
}

// Shrinking is for the members alone to call, which splitting is not; but somebody must be left out of it.
int32_t part(void *communicator, int32_t, int32_t rank, const int32_t *left_out, int32_t num_left_out, void **made,
             char *error) {
  const Nccl *n = nccl(error);
  if (!n) return ZS_UNSUPPORTED;
  NcclComm parent = of(communicator).comm;
  std::vector<int> others(left_out, left_out + num_left_out);
  if (others.empty())
    return made_by(*n, "ncclCommSplit", made, error,
                   [&](NcclComm *comm, NcclConfig *config) { return n->split(parent, 0, rank, comm, config); });
  return made_by(*n, "ncclCommShrink", made, error, [&](NcclComm *comm, NcclConfig *config) {
    return n->shrink(parent, others.data(), num_left_out, comm, config, 0);
  });
}

int32_t was_aborted(char *error) {
  snprintf(error, ZS_ERROR_BYTES, "NCCL: the communicator was aborted");
  return ZS_DEVICE_ERROR;
}

int32_t busy(void *communicator, int32_t *busy, char *error) {
  const Nccl &n = *nccl(error);
  Communicator &c = of(communicator);
  std::lock_guard guard(c.use);
  if (c.aborted.load()) return was_aborted(error);
  int result = NCCL_OK;
  NcclComm comm = c.comm;
  if (int32_t status = answer(n, comm, n.async_error(comm, &result), "ncclCommGetAsyncError", error)) return status;
  *busy = result == NCCL_IN_PROGRESS;
  return answer(n, comm, result, "NCCL", error);
}

int type_of(int dtype) {
  constexpr int types[] = {NCCL_F32, NCCL_BF16, NCCL_F16, NCCL_I32, NCCL_U8, NCCL_I64, NCCL_U8, NCCL_U8};  // codes are moved, never summed
  return types[dtype];
}

size_t size_of(int dtype) {
  constexpr size_t sizes[] = {4, 2, 2, 4, 1, 8, 1, 1};
  return sizes[dtype];
}

int all_to_all(const Nccl &n, const zs_exchange &e, int32_t size, NcclComm comm, void *stream) {
  size_t count = static_cast<size_t>(e.count), bytes = count * size_of(e.dtype);
  int result = n.group_start();
  for (int32_t peer = 0; peer < size && (result == NCCL_OK || result == NCCL_IN_PROGRESS); peer++) {
    size_t at = static_cast<size_t>(peer) * bytes;
    result = n.send(static_cast<const char *>(e.input) + at, count, type_of(e.dtype), peer, comm, stream);
    if (result == NCCL_OK || result == NCCL_IN_PROGRESS)
      result = n.recv(static_cast<char *>(e.output) + at, count, type_of(e.dtype), peer, comm, stream);
  }
  int ended = n.group_end();  // also after a failure
  return result == NCCL_OK || result == NCCL_IN_PROGRESS ? ended : result;
}

int queue(const Nccl &n, const zs_exchange &e, int32_t size, NcclComm comm, void *stream) {
  size_t count = static_cast<size_t>(e.count);
  int type = type_of(e.dtype), op = e.average ? NCCL_AVERAGE : NCCL_SUM;
  switch (e.kind) {
    case ZS_ALL_REDUCE: return n.all_reduce(e.input, e.output, count, type, op, comm, stream);
    case ZS_REDUCE_SCATTER: return n.reduce_scatter(e.input, e.output, count, type, op, comm, stream);
    case ZS_ALL_GATHER: return n.all_gather(e.input, e.output, count, type, comm, stream);
    case ZS_BROADCAST: return n.broadcast(e.input ? e.input : e.output, e.output, count, type, e.peer, comm, stream);
    case ZS_ALL_TO_ALL: return all_to_all(n, e, size, comm, stream);
    case ZS_SEND: return n.send(e.input, count, type, e.peer, comm, stream);
    default: return n.recv(e.output, count, type, e.peer, comm, stream);
  }
}

// The event goes behind the exchange once that is queued, which NCCL does in the background, too.
int32_t mark(Communicator &c, const zs_stream *stream, char *error) {
  std::lock_guard guard(c.lock);
  cudaEvent_t done = nullptr;
  if (!c.events.empty()) {
    done = c.events.back();
    c.events.pop_back();
  } else {
    cudaError_t made = cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
    if (int32_t status = check(made, error, "cudaEventCreate")) return status;
  }
  c.under_way.push_back({done, c.queueing_since});
  c.queueing = false;
  return check(cudaEventRecord(done, static_cast<cudaStream_t>(stream->native)), error, "cudaEventRecord");
}

int32_t wait_queued(Communicator &c, char *error) {
  int32_t still = 1;
  for (int turn = 0; still; turn++) {
    if (int32_t status = busy(&c, &still, error)) return status;
    if (still && turn > kTurns) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return ZS_OK;
}

int32_t run(void *communicator, int32_t size, const zs_exchange *exchange, const zs_stream *stream, char *error) {
  Communicator &c = of(communicator);
  const Nccl &n = *nccl(error);
  if (exchange->kind == ZS_BARRIER) {
    snprintf(error, ZS_ERROR_BYTES, "NCCL has no barrier");
    return ZS_UNSUPPORTED;
  }
  if (exchange->count == 0) return ZS_OK;
  {
    std::lock_guard guard(c.lock);
    c.queueing = true;
    c.queueing_since = Clock::now();
  }
  {
    std::lock_guard guard(c.use);
    if (c.aborted.load()) return was_aborted(error);
    if (int32_t status = answer(n, c.comm, queue(n, *exchange, size, c.comm, stream->native), "NCCL", error))
      return status;
  }
  if (int32_t status = wait_queued(c, error)) return status;
  return mark(c, stream, error);
}

int32_t watch(void *communicator, double *seconds, char *error) {
  Communicator &c = of(communicator);
  int32_t ignored = 0;
  *seconds = 0;
  if (int32_t status = busy(communicator, &ignored, error)) return status;
  std::lock_guard guard(c.lock);
  while (!c.under_way.empty() && cudaEventQuery(c.under_way.front().done) == cudaSuccess) {
    c.events.push_back(c.under_way.front().done);
    c.under_way.pop_front();
  }
  cudaGetLastError();
  if (c.under_way.empty() && !c.queueing) return ZS_OK;
  Clock::time_point since = c.under_way.empty() ? c.queueing_since : c.under_way.front().since;
  *seconds = std::chrono::duration<double>(Clock::now() - since).count();
  return ZS_OK;
}

void abort(void *communicator) {
  Communicator &c = of(communicator);
  char error[ZS_ERROR_BYTES];
  std::lock_guard guard(c.use);
  if (c.aborted.exchange(true)) return;
  nccl(error)->abort(c.comm);
}

void destroy(void *communicator) {
  Communicator *c = &of(communicator);
  char error[ZS_ERROR_BYTES];
  if (!c->aborted.load()) nccl(error)->destroy(c->comm);
  for (Communicator::Exchange &one : c->under_way) cudaEventDestroy(one.done);
  for (cudaEvent_t event : c->events) cudaEventDestroy(event);
  delete c;
}

int32_t use_copy_engines(char *error) {
  const Nccl *n = nccl(error);
  if (!n) return ZS_UNSUPPORTED;
  int version = 0;
  if (int32_t status = answer(*n, nullptr, n->version(&version), "ncclGetVersion", error)) return status;
  if (version < kCopyEngines) {
    snprintf(error, ZS_ERROR_BYTES, "NCCL %d.%d does not use copy engines, 2.28 does", version / 10000,
             version / 100 % 100);
    return ZS_UNSUPPORTED;
  }
  copy_engines.store(true);
  return ZS_OK;
}

void *allocate(size_t bytes) {
  char error[ZS_ERROR_BYTES];
  const Nccl *n = nccl(error);
  void *data = nullptr;
  if (!n || !n->mem_alloc || use_device() != cudaSuccess) return nullptr;
  if (n->mem_alloc(&data, bytes) == NCCL_OK) return data;
  cudaGetLastError();
  return nullptr;
}

void release(void *data, size_t) {
  char error[ZS_ERROR_BYTES];
  if (use_device() == cudaSuccess) nccl(error)->mem_free(data);
}

int32_t add_memory(void *communicator, void *data, size_t bytes, int32_t symmetric, void **handle, char *error) {
  Communicator &c = of(communicator);
  const Nccl &n = *nccl(error);
  NcclWindow window = nullptr;
  {
    std::lock_guard guard(c.use);
    if (c.aborted.load()) return was_aborted(error);
    int result = symmetric ? n.add_window(c.comm, data, bytes, &window, NCCL_SYMMETRIC_WINDOW)
                           : n.add(c.comm, data, bytes, handle);
    if (int32_t status = answer(n, c.comm, result, symmetric ? "ncclCommWindowRegister" : "ncclCommRegister", error))
      return status;
  }
  int32_t status = wait_queued(c, error);
  if (symmetric) *handle = window;
  return status;
}

void drop_memory(void *communicator, void *handle, int32_t symmetric) {
  Communicator &c = of(communicator);
  char error[ZS_ERROR_BYTES];
  const Nccl &n = *nccl(error);
  {
    std::lock_guard guard(c.use);
    if (c.aborted.load()) return;
    if (symmetric) n.drop_window(c.comm, static_cast<NcclWindow>(handle));
    else n.drop(c.comm, handle);
  }
  if (symmetric) wait_queued(c, error);  // before the memory is another tensor's
}

}  // namespace

const zs_collectives collectives = {sizeof(zs_collectives), open,  unique_id, create,           part,     busy,    run,
                                    watch,                  abort, destroy,   use_copy_engines, allocate, release, add_memory,
                                    drop_memory};

}  // namespace zs::cuda
