// Collectives between faked devices for ranks that are threads of one process: an exchange is queued on the rank's
// stream, meets the others' there, and adds in rank order. A rank that does not come makes the others wait until
// abort(), as NCCL's kernels do; a send ends only when it was received.
#pragma once
#include <algorithm>

#include "../../native/backend/collectives.h"
#include "fake_device.h"

namespace zs::fake {

// Where the ranks of a communicator meet, exchange after exchange.
struct Hub {
  int size = 0;
  std::mutex lock;
  std::condition_variable moved;
  std::vector<zs_exchange> given;
  std::vector<std::string> windows;  // where in which window each rank's whole array lies
  int arrived = 0, left = 0;
  std::vector<bool> aborted;  // by rank: of the others nobody is told
  const void *sent = nullptr;  // of the send under way; nullptr: none
  size_t sent_bytes = 0;
};

struct FakeCommunicator {
  std::shared_ptr<Hub> hub;
  int rank = 0;
  std::vector<int> ranks;  // of the world
  std::mutex lock;
  std::deque<std::pair<std::shared_ptr<std::atomic<bool>>, double>> under_way;
};

struct Known {  // memory, to a communicator
  void *communicator;
  char *data;
  size_t bytes;
  bool symmetric;
  int number;
};

struct Network {
  std::mutex lock;
  std::vector<Known> known;
  int num_known = 0;
  std::atomic<int> num_registered{0};  // exchanges of registered buffers
  std::atomic<int> exchange_microseconds{0};               // that each takes
  std::vector<std::pair<double, double>> exchanges;  // of rank 0, where they take time: when
  std::map<std::string, std::shared_ptr<Hub>> hubs;  // by id, or by the members and their how-manieth group
  std::map<std::pair<std::string, int>, int> ordinals;
  std::atomic<int> num_runs{0}, num_messages{0}, num_aborts{0}, num_live{0};
  std::atomic<bool> missing{false};  // the library is not there
  std::atomic<bool> breaks{false};   // the next look finds a failure
  std::atomic<bool> stuck{false};    // receives never find their sends
};

inline Network network;

inline std::shared_ptr<Hub> hub_named(const std::string &name, int size) {
  std::lock_guard guard(network.lock);
  std::shared_ptr<Hub> &hub = network.hubs[name];
  if (hub) return hub;
  hub = std::make_shared<Hub>();
  hub->size = size;
  hub->given.resize(static_cast<size_t>(size));
  hub->windows.resize(static_cast<size_t>(size));
  hub->aborted.resize(static_cast<size_t>(size), false);
  return hub;
}

inline int32_t comm_open(char *error) {
  return network.missing ? tell(error, ZS_UNSUPPORTED, "libfake.so is not found") : ZS_OK;
}

inline int32_t comm_unique_id(char *id, char *) {
  static std::atomic<int> count{0};
  memset(id, 0, ZS_UNIQUE_ID_BYTES);
  snprintf(id, ZS_UNIQUE_ID_BYTES, "id %d", ++count);
  id[ZS_UNIQUE_ID_BYTES - 1] = '\xff';
  return ZS_OK;
}

inline int32_t comm_create(int32_t size, int32_t rank, const char *id, void **made, char *) {
  if (id[ZS_UNIQUE_ID_BYTES - 1] != '\xff') die("the id did not survive its journey");
  FakeCommunicator *c = new FakeCommunicator;
  c->hub = hub_named(id, size);
  c->rank = rank;
  for (int r = 0; r < size; r++) c->ranks.push_back(r);
  network.num_live++;
  *made = c;
  return ZS_OK;
}

inline int32_t comm_part(void *parent, int32_t size, int32_t rank, const int32_t *left_out, int32_t num_left_out,
                         void **made, char *) {
  FakeCommunicator *world = static_cast<FakeCommunicator *>(parent), *c = new FakeCommunicator;
  std::string name;
  for (int r : world->ranks)
    if (std::find(left_out, left_out + num_left_out, r) == left_out + num_left_out) {
      c->ranks.push_back(r);
      name += std::to_string(r) + ",";
    }
  if (static_cast<int>(c->ranks.size()) != size) die("a group of another size");
  int ordinal;
  {
    std::lock_guard guard(network.lock);
    char world_name[32];
    snprintf(world_name, sizeof world_name, "%p ", static_cast<void *>(world->hub.get()));
    name = world_name + name;
    ordinal = network.ordinals[{name, rank}]++;
  }
  c->hub = hub_named(name + std::to_string(ordinal), size);
  c->rank = rank;
  network.num_live++;
  *made = c;
  return ZS_OK;
}

inline int32_t comm_busy(void *, int32_t *busy, char *) { return *busy = 0, ZS_OK; }

inline float *floats(const void *data, int64_t count) {
  return reinterpret_cast<float *>(real(data, static_cast<size_t>(count) * 4));
}

inline size_t bytes_of(const zs_exchange &exchange) {
  constexpr size_t sizes[] = {4, 2, 2, 4, 1, 8, 1, 1};
  return static_cast<size_t>(exchange.count) * sizes[exchange.dtype];
}

inline bool adds(const zs_exchange &exchange) {
  return exchange.kind == ZS_ALL_REDUCE || exchange.kind == ZS_REDUCE_SCATTER;
}

inline bool can_add(const zs_exchange &exchange) {
  return !adds(exchange) || exchange.dtype == ZS_F32 || (exchange.dtype == ZS_I64 && !exchange.average);
}

template <class T>
inline void add(std::vector<char> &sum, const char *values) {
  for (size_t at = 0; at < sum.size(); at += sizeof(T))
    *reinterpret_cast<T *>(sum.data() + at) += *reinterpret_cast<const T *>(values + at);
}

// The how-manieth window of the communicator, and the place in it; empty: in none.
inline std::string place_in_window(const FakeCommunicator *c, const void *data) {
  std::lock_guard guard(network.lock);
  int window = 0;
  for (auto &known : network.known) {
    if (known.communicator != c || !known.symmetric) continue;
    if (data >= known.data && data < known.data + known.bytes)
      return std::to_string(window) + "+" + std::to_string(static_cast<const char *>(data) - known.data);
    window++;
  }
  return "";
}

inline void meet(FakeCommunicator *c, const zs_exchange &exchange) {
  Hub &hub = *c->hub;
  const size_t me = static_cast<size_t>(c->rank);
  std::unique_lock guard(hub.lock);
  hub.moved.wait(guard, [&] { return hub.left == 0 || hub.aborted[me]; });
  if (hub.aborted[me]) return;
  hub.given[static_cast<size_t>(c->rank)] = exchange;
  const bool cut = exchange.kind == ZS_REDUCE_SCATTER || exchange.kind == ZS_ALL_TO_ALL;
  hub.windows[me] = place_in_window(c, cut ? exchange.input : exchange.output);
  if (exchange.kind == ZS_BROADCAST && !exchange.input) hub.given[static_cast<size_t>(c->rank)].input = exchange.output;
  hub.arrived++;
  hub.moved.notify_all();
  hub.moved.wait(guard, [&] { return hub.arrived == hub.size || hub.left > 0 || hub.aborted[me]; });
  if (hub.aborted[me]) return;
  for (const zs_exchange &other : hub.given)
    if (other.kind != exchange.kind || other.count != exchange.count) die("ranks exchange different things");
  for (const std::string &window : hub.windows)
    if (window != hub.windows[0]) die("an exchange at different places of the ranks' windows");
  const int64_t n = exchange.count, size = hub.size;
  const bool gathers = exchange.kind == ZS_ALL_GATHER || exchange.kind == ZS_ALL_TO_ALL;
  const size_t root = static_cast<size_t>(exchange.peer);
  const size_t part = bytes_of(exchange), whole = part * hub.given.size();
  std::vector<char> result(gathers ? whole : part);
  for (size_t r = 0; r < hub.given.size(); r++) {
    const char *from = real(hub.given[r].input, cut ? whole : part) + (cut ? me * part : 0);
    if (gathers) memcpy(result.data() + r * part, from, part);
    else if (exchange.kind == ZS_BROADCAST && r == root) memcpy(result.data(), from, part);
    else if (adds(exchange) && exchange.dtype == ZS_F32) add<float>(result, from);
    else if (adds(exchange)) add<int64_t>(result, from);
  }
  float *sums = reinterpret_cast<float *>(result.data());
  if (exchange.average)
    for (int64_t i = 0; i < n; i++) sums[i] /= static_cast<float>(size);
  if (++hub.left == hub.size) hub.arrived = -1;  // all have read: outputs may be written
  hub.moved.notify_all();
  hub.moved.wait(guard, [&] { return hub.arrived < 0 || hub.aborted[me]; });
  if (hub.aborted[me]) return;
  memcpy(real(exchange.output, result.size()), result.data(), result.size());
  if (--hub.left == 0) hub.arrived = 0;
  hub.moved.notify_all();
}

// A communicator of two, used in one direction.
inline void pass(FakeCommunicator *c, const zs_exchange &exchange) {
  Hub &hub = *c->hub;
  const size_t me = static_cast<size_t>(c->rank);
  const size_t bytes = bytes_of(exchange);
  std::unique_lock guard(hub.lock);
  if (exchange.kind == ZS_SEND) {
    hub.sent = exchange.input;
    hub.sent_bytes = bytes;
    hub.moved.notify_all();
    hub.moved.wait(guard, [&] { return !hub.sent || hub.aborted[me]; });
    hub.sent = nullptr;
    return;
  }
  hub.moved.wait(guard, [&] { return (hub.sent && !network.stuck) || hub.aborted[me]; });
  if (hub.aborted[me]) return;
  if (hub.sent_bytes != bytes) die("a message of another size");
  memcpy(real(exchange.output, bytes), real(hub.sent, bytes), bytes);
  hub.sent = nullptr;
  hub.moved.notify_all();
}

inline bool is_known(const FakeCommunicator *c, const void *data) {
  std::lock_guard guard(network.lock);
  for (auto &known : network.known)
    if (known.communicator == c && data >= known.data && data < known.data + known.bytes) return true;
  return false;
}

inline int32_t comm_run(void *communicator, int32_t size, const zs_exchange *exchange, const zs_stream *stream,
                        char *error) {
  FakeCommunicator *c = static_cast<FakeCommunicator *>(communicator);
  const bool message = exchange->kind == ZS_SEND || exchange->kind == ZS_RECV;
  if (size != c->hub->size || (message ? size != 2 || exchange->peer != 1 - c->rank : !can_add(*exchange)))
    return tell(error, ZS_BAD_ARGUMENT, "not what is faked");
  (message ? network.num_messages : network.num_runs)++;
  if (is_known(c, exchange->output)) network.num_registered++;
  auto done = std::make_shared<std::atomic<bool>>(false);
  {
    std::lock_guard guard(c->lock);
    c->under_way.emplace_back(done, seconds_now());
  }
  queue(native(stream), [c, done, message, given = *exchange] {
    int microseconds = network.exchange_microseconds;
    double begin = seconds_now();
    if (microseconds) usleep(static_cast<useconds_t>(microseconds));
    if (message) pass(c, given);
    else meet(c, given);
    if (microseconds && c->rank == 0) {
      std::lock_guard guard(network.lock);
      network.exchanges.emplace_back(begin, seconds_now());
    }
    done->store(true);
  });
  return ZS_OK;
}

inline int32_t comm_watch(void *communicator, double *seconds, char *error) {
  FakeCommunicator *c = static_cast<FakeCommunicator *>(communicator);
  *seconds = 0;
  if (network.breaks.exchange(false)) return tell(error, ZS_DEVICE_ERROR, "the link is down");
  std::lock_guard guard(c->lock);
  while (!c->under_way.empty() && c->under_way.front().first->load()) c->under_way.pop_front();
  if (!c->under_way.empty()) *seconds = seconds_now() - c->under_way.front().second;
  return ZS_OK;
}

inline void comm_abort(void *communicator) {
  network.num_aborts++;
  Hub &hub = *static_cast<FakeCommunicator *>(communicator)->hub;
  std::lock_guard guard(hub.lock);
  hub.aborted[static_cast<size_t>(static_cast<FakeCommunicator *>(communicator)->rank)] = true;
  hub.moved.notify_all();
}

inline void comm_destroy(void *communicator) {
  network.num_live--;
  delete static_cast<FakeCommunicator *>(communicator);
}

inline int32_t comm_use_copy_engines(char *error) { return tell(error, ZS_UNSUPPORTED, "this one has none"); }

inline int32_t comm_add_memory(void *communicator, void *data, size_t bytes, int32_t symmetric, void **handle, char *) {
  if (symmetric && reinterpret_cast<uintptr_t>(data) % 4096) die("a window begins within a page");
  std::lock_guard guard(network.lock);
  network.known.push_back({communicator, static_cast<char *>(data), bytes, symmetric != 0, ++network.num_known});
  *handle = reinterpret_cast<void *>(static_cast<uintptr_t>(network.num_known));
  return ZS_OK;
}

inline void comm_drop_memory(void *communicator, void *handle, int32_t symmetric) {
  std::lock_guard guard(network.lock);
  size_t dropped = std::erase_if(network.known, [&](auto &known) {
    return known.communicator == communicator && known.number == static_cast<int>(reinterpret_cast<uintptr_t>(handle)) &&
           known.symmetric == (symmetric != 0);
  });
  if (dropped != 1) die("memory is dropped that was not added");
}

inline const zs_collectives fake_collectives = {
    sizeof(zs_collectives), comm_open,  comm_unique_id, comm_create,           comm_part, comm_busy, comm_run,
    comm_watch,             comm_abort, comm_destroy,   comm_use_copy_engines, allocate,  release,   comm_add_memory,
    comm_drop_memory};

}  // namespace zs::fake
