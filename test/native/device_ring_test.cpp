// Ring attention's messages (lib/parallel/context/ring.ts) on faked devices whose sends end only beside their receives:
// keys and values go round, in backward their gradients behind them, while each rank computes. All of them take the
// links of the ring, nobody waits for ever whatever the host waits for, and memory is used again at once.
#include "device_world.h"

namespace {

using namespace zs::world_test;
using zs::Collective;

constexpr int64_t kCount = 64;
constexpr int kForward = 1, kBackward = 2, kGradients = 3;  // tags

// What the host does behind each computation, as in device_pipeline_test.cpp.
enum class Host { runs_ahead, waits, waits_for_all };

std::atomic<int> num_checked{0}, compute_microseconds{0};
std::mutex log_lock;
std::vector<std::pair<double, double>> computed;  // by rank 0: when

// Reads keys and values: all of them are what they should be.
int32_t visit(zs_call *call) {
  zs_tensor x = call->tensors[0];
  float wanted = static_cast<float>(call->scalars[0]);
  bool logs = call->scalars[1] == 0;
  zs::fake::queue(static_cast<zs::fake::FakeStream *>(call->stream), [=] {
    double begin = zs::fake::seconds_now();
    if (compute_microseconds > 0) usleep(static_cast<useconds_t>(compute_microseconds));
    for (int64_t i = 0; i < x.count; i++) CHECK(zs::fake::floats(x.data, x.count)[i] == wanted);
    num_checked++;
    if (!logs || compute_microseconds == 0) return;
    std::lock_guard guard(log_lock);
    computed.emplace_back(begin, zs::fake::seconds_now());
  });
  return ZS_OK;
}

int32_t add(zs_call *call) {
  zs_tensor y = call->tensors[0], a = call->tensors[1], b = call->tensors[2];
  zs::fake::queue(static_cast<zs::fake::FakeStream *>(call->stream), [=] {
    for (int64_t i = 0; i < y.count; i++)
      zs::fake::floats(y.data, y.count)[i] =
          zs::fake::floats(a.data, a.count)[i] + zs::fake::floats(b.data, b.count)[i];
  });
  return ZS_OK;
}

void release(zs::Runtime &runtime, int64_t handle) {
  double packet[] = {static_cast<double>(handle)};
  runtime.free(packet);
}

// One rank, which does in the order of ring.ts what that does.
struct Ring {
  zs::Runtime &runtime;
  int rank, size, group;
  Host host = Host::runs_ahead;

  // As linkRing().
  bool link() {
    bool linked = true;
    for (int from = 0; from < size; from++) {
      int to = (from + 1) % size;
      if (rank == from || rank == to) linked &= runtime.comm_link(group, from, to);
    }
    return linked;
  }

  int64_t pass(int64_t x, int tag) {
    collective(runtime, Collective::send, group, 0, x, (rank + 1) % size, false, 1, tag);
    int64_t y = allocate(runtime, kCount);
    collective(runtime, Collective::recv, group, y, 0, (rank + size - 1) % size, false, 4, tag);
    return y;
  }

  void go_round(int tag, int layer, const std::function<void(int)> &then) {
    int64_t kv = allocate(runtime, kCount);
    set(runtime, kv, 100 * layer + rank);
    for (int step = 0; step < size; step++) {
      int64_t next = step + 1 < size ? pass(kv, tag) : 0;
      int source = (rank + size - step) % size;
      double packet[] = {ZS_OP_affine, 0, static_cast<double>(kv), 0, static_cast<double>(100 * layer + source),
                         static_cast<double>(rank)};
      runtime.run(packet);
      then(source);
      release(runtime, kv);
      kv = next;
      if (host == Host::waits) runtime.synchronize_now(0);
      if (host != Host::waits_for_all) continue;
      zs::test::rest(0.0003);  // for the threads that launch
      char error[ZS_ERROR_BYTES];
      zs::fake::synchronize(error);
    }
  }

  // Every rank's part for these keys and values is 10 · its rank + theirs: the sum comes home.
  void backward(int layer) {
    int64_t arriving = 0;
    go_round(kBackward, layer, [&](int source) {
      int64_t part = allocate(runtime, kCount);
      set(runtime, part, 10 * rank + source);
      if (arriving) {
        double packet[] = {ZS_OP_binary, 0, static_cast<double>(part), static_cast<double>(part),
                           static_cast<double>(arriving), 0};
        runtime.run(packet);
        release(runtime, arriving);
      }
      arriving = pass(part, kGradients);
      set(runtime, part, -1);  // at once
      release(runtime, part);
    });
    check_all(read(runtime, arriving, kCount), 5 * size * (size - 1) + size * rank);
    release(runtime, arriving);
  }
};

constexpr int kLayers = 3;

int num_messages(int size) { return size * kLayers * (size - 1 + size - 1 + size); }

void train(Ring &ring) {
  for (int layer = 0; layer < kLayers; layer++) ring.go_round(kForward, layer, [](int) {});
  for (int layer = kLayers - 1; layer >= 0; layer--) {
    ring.backward(layer);
    int64_t gradients = allocate(ring.runtime, kCount);  // of the layer, on the stream of the sends
    set(ring.runtime, gradients, 1);
    collective(ring.runtime, Collective::all_reduce, 0, gradients, 0, 0);
    if (layer == 0) check_all(read(ring.runtime, gradients, kCount), ring.size);
    release(ring.runtime, gradients);
  }
  ring.runtime.synchronize_now(-1);
}

void messages_of_a_ring_go_between_devices() {
  zs::fake::device.max_delay_microseconds = 50;
  for (int size : {2, 3, 4})
    for (bool own_group : {false, true}) {
      int before = network.num_messages;
      num_checked = 0;
      World(size).run(20, [&](zs::Runtime &runtime, int rank) {
        std::vector<int> ranks;
        for (int r = 0; r < size; r++) ranks.push_back(r);
        Ring ring{runtime, rank, size, own_group ? runtime.comm_group(ranks) : 0};
        zs::test::rest(0.005 * (rank * 3 % 4));  // they come in any order
        CHECK(ring.link() && ring.link());       // the second time there is nothing to do
        for (Host host : {Host::runs_ahead, Host::waits, Host::waits_for_all}) {
          ring.host = host;
          train(ring);
        }
        runtime.comm_destroy();
      });
      CHECK(num_checked == 3 * 2 * kLayers * size * size);
      CHECK(network.num_messages - before == 2 * (size + 3 * num_messages(size)));  // the links' first ones, and all
    }
  zs::fake::device.max_delay_microseconds = 0;
}

// Two rings of a mesh of four, each of which has ranks of its own, beside each other.
void rings_of_a_mesh_are_linked_beside_each_other() {
  int before = network.num_messages;
  World(4).run(20, [&](zs::Runtime &runtime, int rank) {
    std::vector<int> ranks = rank % 2 ? std::vector<int>{1, 3} : std::vector<int>{0, 2};
    Ring ring{runtime, rank / 2, 2, runtime.comm_group(ranks)};
    CHECK(ring.link());
    for (int layer = 0; layer < kLayers; layer++) ring.go_round(kForward, layer, [](int) {});
    for (int layer = 0; layer < kLayers; layer++) ring.backward(layer);
    runtime.synchronize_now(-1);
    runtime.comm_destroy();
  });
  CHECK(network.num_messages - before == 2 * 2 * (2 + num_messages(2)));
}

void the_next_block_is_under_way_while_one_is_computed() {
  network.exchange_microseconds = 6000;
  network.exchanges.clear();
  constexpr int kSize = 3;
  World(kSize).run(20, [](zs::Runtime &runtime, int rank) {
    Ring ring{runtime, rank, kSize, 0};
    CHECK(ring.link());
    collective(runtime, Collective::barrier, 0, 0, 0, 0);
    runtime.synchronize_now(-1);
    if (rank == 0) {
      std::lock_guard guard(network.lock);
      network.exchanges.clear();
      compute_microseconds = 10000;
    }
    collective(runtime, Collective::barrier, 0, 0, 0, 0);
    runtime.synchronize_now(-1);
    for (int layer = 0; layer < kLayers; layer++) ring.go_round(kForward, layer, [](int) {});
    runtime.synchronize_now(-1);
    runtime.comm_destroy();
  });
  network.exchange_microseconds = compute_microseconds = 0;
  int beside = 0;
  for (auto &one : network.exchanges)
    beside += std::any_of(computed.begin(), computed.end(),
                          [&](auto &other) { return one.first < other.second && other.first < one.second; });
  const int all = kSize * kLayers * (kSize - 1);  // the ranks compute at the same times
  CHECK(static_cast<int>(network.exchanges.size()) == all && beside >= all - 4);
}

// As ranks that share a device, where links cannot be made.
void without_links_the_ring_goes_through_the_host() {
  one_device = true;
  int before = network.num_messages;
  World(3).run(20, [](zs::Runtime &runtime, int rank) {
    Ring ring{runtime, rank, 3, 0};
    CHECK(!ring.link());
    train(ring);
  });
  CHECK(network.num_messages == before);
  one_device = false;
}

}  // namespace

int main() {
  kernels[ZS_OP_affine] = visit;
  kernels[ZS_OP_binary] = add;
  without_links_the_ring_goes_through_the_host();
  messages_of_a_ring_go_between_devices();
  rings_of_a_mesh_are_linked_beside_each_other();
  the_next_block_is_under_way_while_one_is_computed();
  puts("device_ring_test: ok");
  return 0;
}
