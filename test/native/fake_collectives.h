// Collectives between faked devices for ranks that are threads of one process: an exchange is queued on the rank's
// stream, meets the others' there, and adds in rank order. A rank that does not come makes the others wait until
// abort(), as NCCL's kernels do.
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
  int arrived = 0, left = 0;
  std::vector<bool> aborted;  // by rank: of the others nobody is told
};

struct FakeCommunicator {
  std::shared_ptr<Hub> hub;
  int rank = 0;
  std::vector<int> ranks;  // of the world
  std::mutex lock;
  std::deque<std::pair<std::shared_ptr<std::atomic<bool>>, double>> under_way;
};

struct Network {
  std::mutex lock;
  std::map<std::string, std::shared_ptr<Hub>> hubs;  // by id, or by the members and their how-manieth group
  std::map<std::pair<std::string, int>, int> ordinals;
  std::atomic<int> num_runs{0}, num_aborts{0}, num_live{0};
  std::atomic<bool> missing{false};  // the library is not there
  std::atomic<bool> breaks{false};   // the next look finds a failure
};

inline Network network;

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline std::shared_ptr<Hub> hub_named(const std::string &name, int size) {
  std::lock_guard guard(network.lock);
  std::shared_ptr<Hub> &hub = network.hubs[name];
  if (!hub) hub = std::make_shared<Hub>();
  hub->size = size;
  hub->given.resize(static_cast<size_t>(size));
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

inline void meet(FakeCommunicator *c, const zs_exchange &exchange) {
  Hub &hub = *c->hub;
  const size_t me = static_cast<size_t>(c->rank);
  std::unique_lock guard(hub.lock);
  hub.moved.wait(guard, [&] { return hub.left == 0 || hub.aborted[me]; });
  if (hub.aborted[me]) return;
  hub.given[static_cast<size_t>(c->rank)] = exchange;
  if (exchange.kind == ZS_BROADCAST && !exchange.input) hub.given[static_cast<size_t>(c->rank)].input = exchange.output;
  hub.arrived++;
  hub.moved.notify_all();
  hub.moved.wait(guard, [&] { return hub.arrived == hub.size || hub.left > 0 || hub.aborted[me]; });
  if (hub.aborted[me]) return;
  for (const zs_exchange &other : hub.given)
    if (other.kind != exchange.kind || other.count != exchange.count) die("ranks exchange different things");
  const int64_t n = exchange.count, size = hub.size;
  const bool gathers = exchange.kind == ZS_ALL_GATHER || exchange.kind == ZS_ALL_TO_ALL;
  std::vector<float> result(static_cast<size_t>(gathers ? n * size : n), 0);
  for (int64_t r = 0; r < size; r++) {
    const void *input = hub.given[static_cast<size_t>(r)].input;
    const bool cut = exchange.kind == ZS_REDUCE_SCATTER || exchange.kind == ZS_ALL_TO_ALL;
    const float *values = floats(input, cut ? n * size : n) + (cut ? c->rank * n : 0);
    for (int64_t i = 0; i < n; i++) {
      size_t at = static_cast<size_t>(gathers ? r * n + i : i);
      if (exchange.kind == ZS_BROADCAST) result[at] = r == exchange.peer ? values[i] : result[at];
      else result[at] += values[i];
    }
  }
  if (exchange.average)
    for (float &value : result) value /= static_cast<float>(size);
  if (++hub.left == hub.size) hub.arrived = -1;  // all have read: outputs may be written
  hub.moved.notify_all();
  hub.moved.wait(guard, [&] { return hub.arrived < 0 || hub.aborted[me]; });
  if (hub.aborted[me]) return;
  std::copy(result.begin(), result.end(), floats(exchange.output, static_cast<int64_t>(result.size())));
  if (--hub.left == 0) hub.arrived = 0;
  hub.moved.notify_all();
}

inline int32_t comm_run(void *communicator, int32_t size, const zs_exchange *exchange, const zs_stream *stream,
                        char *error) {
  FakeCommunicator *c = static_cast<FakeCommunicator *>(communicator);
  if (size != c->hub->size || exchange->dtype != ZS_F32) return tell(error, ZS_BAD_ARGUMENT, "not what is faked");
  network.num_runs++;
  auto done = std::make_shared<std::atomic<bool>>(false);
  {
    std::lock_guard guard(c->lock);
    c->under_way.emplace_back(done, seconds_now());
  }
  queue(native(stream), [c, done, given = *exchange] {
    meet(c, given);
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

inline const zs_collectives fake_collectives = {sizeof(zs_collectives), comm_open, comm_unique_id, comm_create, comm_part,
                                                comm_busy, comm_run, comm_watch, comm_abort, comm_destroy};

}  // namespace zs::fake
