// The process group of ranks with a device each, on faked devices whose ranks are threads: what goes between devices
// and what through the host, groups, a rank that does not come, a failure in the background, no library.
#include "../../native/core/runtime.h"
#include "fake_collectives.h"
#include "processes.h"

namespace {

using zs::Collective;
using zs::fake::network;

std::atomic<bool> one_device{false};

int32_t device_info(int32_t, zs_device_info *info, char *) {
  static std::atomic<int> count{0};
  *info = {};
  snprintf(info->uuid, sizeof info->uuid, "uuid-%d", one_device ? 0 : ++count);
  return ZS_OK;
}

zs_kernel kernels[ZS_OP_COUNT];

int32_t fill(zs_call *call) {
  zs_tensor y = call->tensors[0];
  float value = static_cast<float>(call->scalars[0]);
  zs::fake::queue(static_cast<zs::fake::FakeStream *>(call->stream),
                  [=] { std::fill_n(zs::fake::floats(y.data, y.count), y.count, value); });
  return ZS_OK;
}

zs_backend backend() {
  zs_backend made = zs::fake::table(kernels);
  made.device_info = device_info;
  made.collectives = &zs::fake::fake_collectives;
  return made;
}

// Ranks as threads, and the exchange of facts.
class World {
 public:
  explicit World(int size) : facts_(static_cast<size_t>(size)) {}
  void run(double timeout, const std::function<void(zs::Runtime &, int)> &body) {
    static int count = 0;
    std::string job = "group-" + std::to_string(getpid()) + "-" + std::to_string(++count);
    int size = static_cast<int>(facts_.size());
    std::vector<std::thread> ranks;
    for (int r = 0; r < size; r++)
      ranks.emplace_back([=, this] {
        zs::Runtime runtime(backend());
        std::string mine = runtime.comm_create(r, size, job, timeout);
        {
          std::unique_lock guard(lock_);
          facts_[static_cast<size_t>(r)] = mine;
          arrived_++;
          moved_.notify_all();
          moved_.wait(guard, [&] { return arrived_ >= size; });
        }
        runtime.communicator().connect(facts_);
        try {
          body(runtime, r);
        } catch (const zs::Error &error) {
          fprintf(stderr, "rank %d: %s %s\n", r, error.code.c_str(), error.message.c_str());
          exit(1);
        }
      });
    for (std::thread &rank : ranks) rank.join();
    CHECK(network.num_live == 0 && zs::fake::device.live_events == 0 && zs::fake::device.regions.empty());
  }

 private:
  std::mutex lock_;
  std::condition_variable moved_;
  std::vector<std::string> facts_;
  int arrived_ = 0;
};

int64_t allocate(zs::Runtime &runtime, int64_t count, int category = 3) {
  double packet[] = {ZS_F32, static_cast<double>(category), 1, 1, static_cast<double>(count)};
  return runtime.alloc(packet);
}

void set(zs::Runtime &runtime, int64_t handle, double value) {
  double packet[] = {ZS_OP_fill, 0, static_cast<double>(handle), value};
  runtime.run(packet);
}

void collective(zs::Runtime &runtime, Collective kind, int group, int64_t output, int64_t input, double detail,
                bool average = false, int stream = 1) {
  double packet[] = {static_cast<double>(kind), static_cast<double>(group), static_cast<double>(stream),
                     static_cast<double>(output), static_cast<double>(input), detail, 0, average ? 1.0 : 0.0};
  runtime.collective(packet);
}

std::vector<float> read(zs::Runtime &runtime, int64_t handle, int64_t count, int stream = 0) {
  std::vector<float> got(static_cast<size_t>(count));
  runtime.read_now(static_cast<double>(handle), got.data(), got.size() * 4, stream);
  return got;
}

void check_all(const std::vector<float> &values, double wanted) {
  for (float value : values) CHECK(value == static_cast<float>(wanted));
}

constexpr int64_t kCount = 5;

void exchanges(zs::Runtime &runtime, int rank, int size) {
  for (int round = 0; round < 6; round++) {
    int64_t part = allocate(runtime, kCount), whole = allocate(runtime, kCount * size);
    set(runtime, part, rank + 1 + round);
    collective(runtime, Collective::all_gather, 0, whole, part, kCount);
    CHECK(read(runtime, whole, kCount * size)[static_cast<size_t>(kCount * size - 1)] == static_cast<float>(size + round));
    collective(runtime, Collective::reduce_scatter, 0, part, whole, kCount);
    check_all(read(runtime, part, kCount), size * (rank + 1 + round));
    collective(runtime, Collective::all_reduce, 0, whole, 0, 0, true);
    CHECK(read(runtime, whole, kCount * size)[0] == static_cast<float>(1 + round));
    set(runtime, part, rank);
    collective(runtime, Collective::broadcast, 0, part, 0, size - 1);
    check_all(read(runtime, part, kCount, 2), size - 1);
    if (rank == 0) collective(runtime, Collective::send, 0, 0, part, 1);
    if (rank == 1) collective(runtime, Collective::recv, 0, part, 0, 0);
    collective(runtime, Collective::barrier, 0, 0, 0, 0);
  }
  runtime.synchronize_now(-1);
}

void collectives_go_between_devices_and_messages_through_the_host() {
  zs::fake::device.max_delay_microseconds = 100;
  for (int size : {2, 3}) {
    int before = network.num_runs;
    World(size).run(20, [size](zs::Runtime &runtime, int rank) { exchanges(runtime, rank, size); });
    CHECK(network.num_runs - before == size * 6 * 4);  // not the messages and barriers
  }
  zs::fake::device.max_delay_microseconds = 0;
}

void host_tensors_pass_through_the_host() {
  int before = network.num_runs;
  World(2).run(20, [](zs::Runtime &runtime, int rank) {
    int64_t host = allocate(runtime, kCount, zs::kHost);
    std::vector<float> values(kCount, static_cast<float>(rank + 1));
    runtime.write(static_cast<double>(host), values.data(), values.size() * 4, 0);
    collective(runtime, Collective::all_reduce, 0, host, 0, 0);
    check_all(read(runtime, host, kCount), 3);
  });
  CHECK(network.num_runs == before);
}

void groups_are_made_by_their_members_alone() {
  World(4).run(20, [](zs::Runtime &runtime, int rank) {
    int64_t x = allocate(runtime, kCount);
    std::vector<int> pair = rank < 2 ? std::vector<int>{0, 1} : std::vector<int>{2, 3};
    collective(runtime, Collective::all_reduce, 0, x, 0, 0);
    if (rank % 2) runtime.synchronize_now(-1);  // these come later
    int half = runtime.comm_group(pair);
    set(runtime, x, rank);
    collective(runtime, Collective::all_reduce, half, x, 0, 0);
    check_all(read(runtime, x, kCount), rank < 2 ? 1 : 5);
    if (rank == 0 || rank == 3) {  // the others know nothing of it
      int ends = runtime.comm_group({0, 3});
      set(runtime, x, rank);
      collective(runtime, Collective::all_reduce, ends, x, 0, 0);
      check_all(read(runtime, x, kCount), 3);
    }
    int again = runtime.comm_group({0, 1, 2, 3});
    int backwards = runtime.comm_group({3, 2, 1, 0});  // through the host: NCCL keeps the order
    int64_t whole = allocate(runtime, 4 * kCount);
    set(runtime, x, rank);
    collective(runtime, Collective::all_gather, again, whole, x, kCount);
    CHECK(read(runtime, whole, 4 * kCount)[0] == 0);
    collective(runtime, Collective::all_gather, backwards, whole, x, kCount);
    CHECK(read(runtime, whole, 4 * kCount)[0] == 3);
    runtime.synchronize_now(-1);
  });
}

// The one that comes is told in time, and nothing it reads afterwards passes for a result.
void a_rank_that_does_not_come_ends_the_others() {
  std::atomic<bool> told{false};
  World(2).run(1, [&](zs::Runtime &runtime, int rank) {
    int64_t x = allocate(runtime, kCount), y = allocate(runtime, kCount);
    runtime.synchronize_now(-1);
    if (rank == 1) {
      while (!told) zs::test::rest(0.01);
      return;
    }
    double start = zs::test::now();
    collective(runtime, Collective::all_reduce, 0, x, 0, 0);
    std::string code;
    try {
      read(runtime, x, kCount);
    } catch (const zs::Error &error) {
      code = error.code;
      CHECK(error.message.find("rank 0, group 0") != std::string::npos);
    }
    CHECK(code == "COLLECTIVE_TIMEOUT" && zs::test::now() - start < 10);
    try {
      read(runtime, y, kCount);
      CHECK(false);
    } catch (const zs::Error &error) {
      CHECK(error.code == "COLLECTIVE_TIMEOUT");
    }
    told = true;
  });
}

void a_failure_in_the_background_is_told() {
  std::atomic<int> told{0};
  World(2).run(20, [&](zs::Runtime &runtime, int rank) {
    int64_t x = allocate(runtime, kCount);
    double begin = zs::test::now();
    for (double end = zs::test::now() + 10; zs::test::now() < end;) {
      try {
        if (rank == 0 && zs::test::now() - begin > 0.3 && begin > 0) {
          network.breaks = true;
          begin = 0;
        }
        collective(runtime, Collective::all_reduce, 0, x, 0, 0);
        read(runtime, x, kCount);
      } catch (const zs::Error &error) {
        CHECK(error.code == "RANK_LOST");
        told++;
        return;
      }
    }
  });
  CHECK(told == 2);
}

void without_a_library_or_with_one_device_all_goes_through_the_host() {
  for (bool missing : {true, false}) {
    network.missing = missing;
    one_device = !missing;
    int before = network.num_runs;
    World(2).run(20, [](zs::Runtime &runtime, int rank) {
      exchanges(runtime, rank, 2);
      CHECK(!runtime.communicator().transport()->note().empty());
    });
    CHECK(network.num_runs == before);
    network.missing = false;
    one_device = false;
  }
}

}  // namespace

int main() {
  kernels[ZS_OP_fill] = fill;
  collectives_go_between_devices_and_messages_through_the_host();
  host_tensors_pass_through_the_host();
  groups_are_made_by_their_members_alone();
  a_rank_that_does_not_come_ends_the_others();
  a_failure_in_the_background_is_told();
  without_a_library_or_with_one_device_all_goes_through_the_host();
  puts("device_group_test: ok");
  return 0;
}
