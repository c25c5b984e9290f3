// The process group of ranks with a device each, on faked devices whose ranks are threads: what goes between devices
// and what through the host, groups, a rank that does not come, a failure in the background, no library.
#include "device_world.h"

namespace {

using namespace zs::world_test;
using zs::Collective;

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

// As stage 3 has them with its parameters in host memory, which are written again as soon as they are gathered.
void host_shards_are_gathered_between_devices() {
  zs::fake::device.max_delay_microseconds = 200;
  for (int size : {2, 3}) {
    int before = network.num_runs;
    World(size).run(20, [size](zs::Runtime &runtime, int rank) {
      int64_t shard = allocate(runtime, kCount, zs::kHost);
      for (int round = 0; round < 20; round++) {
        int64_t whole = allocate(runtime, kCount * size);
        std::vector<float> values(kCount, static_cast<float>(10 * round + rank + 1));
        runtime.write(static_cast<double>(shard), values.data(), values.size() * 4, 0);
        collective(runtime, Collective::all_gather, 0, whole, shard, kCount, false, round % 2 ? 2 : 0);
        std::vector<float> next(kCount, -1);
        runtime.write(static_cast<double>(shard), next.data(), next.size() * 4, 0);
        std::vector<float> got = read(runtime, whole, kCount * size);
        for (int r = 0; r < size; r++)
          check_all({got.begin() + r * kCount, got.begin() + (r + 1) * kCount}, 10 * round + r + 1);
        check_all(read(runtime, shard, kCount), -1);
        double free[] = {static_cast<double>(whole)};
        runtime.free(free);
      }
    });
    CHECK(network.num_runs - before == 20 * size);
  }
  zs::fake::device.max_delay_microseconds = 0;
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

int64_t allocate_shared(zs::Runtime &runtime, int64_t count) {
  double packet[] = {ZS_F32, 3, 3, 1, static_cast<double>(count)};
  return runtime.alloc(packet);
}

void release(zs::Runtime &runtime, int64_t handle) {
  double packet[] = {static_cast<double>(handle)};
  runtime.free(packet);
}

void buffers_of_collectives_are_registered_where_asked() {
  setenv("ZEROSHARD_NCCL_BUFFERS", "symmetric", 1);
  network.num_registered = 0;
  World(2).run(20, [](zs::Runtime &runtime, int rank) {
    auto sum = [&](int group, int64_t x) {
      set(runtime, x, rank + 1);
      collective(runtime, Collective::all_reduce, group, x, 0, 0);
      check_all(read(runtime, x, kCount), 3);
    };
    int64_t before = allocate(runtime, kCount), x = allocate_shared(runtime, kCount);
    sum(0, x);
    sum(0, before);
    int pair = runtime.comm_group({0, 1});  // which learns of what is there
    sum(pair, x);
    const int64_t many = 1 << 19;
    int64_t whole = allocate_shared(runtime, many), odd = rank == 0 ? allocate_shared(runtime, many) : allocate(runtime, many);
    CHECK(runtime.comm_window(pair, static_cast<double>(whole)));
    CHECK(!runtime.comm_window(pair, static_cast<double>(x)));    // small
    CHECK(!runtime.comm_window(pair, static_cast<double>(odd)));  // not on all ranks
    for (int64_t handle : {whole, odd, x}) release(runtime, handle);
    int64_t next = allocate_shared(runtime, many);  // the window's memory is kept
    set(runtime, next, 1);
    runtime.synchronize_now(-1);
    size_t windows = 0;
    {
      std::lock_guard guard(network.lock);
      for (auto &known : network.known) windows += known.symmetric;
    }
    CHECK(windows == 2 && runtime.communicator().transport()->note().empty());
    collective(runtime, Collective::all_reduce, 0, before, 0, 0);  // both have looked
    runtime.synchronize_now(-1);
    runtime.comm_destroy();
  });
  CHECK(network.num_registered == 4 && network.known.empty());
  setenv("ZEROSHARD_NCCL_BUFFERS", "copy-engine", 1);
  World(2).run(20, [](zs::Runtime &runtime, int) {
    CHECK(runtime.communicator().transport()->note().find("this one has none") != std::string::npos);
  });
  setenv("ZEROSHARD_NCCL_BUFFERS", "sometimes", 1);
  try {
    zs::Runtime runtime(backend());
    runtime.comm_create(0, 2, "group-" + std::to_string(getpid()) + "-bad", 1);
    CHECK(false);
  } catch (const zs::Error &error) {
    CHECK(error.code == "ARGUMENT" && error.message.find("registered, symmetric or copy-engine") != std::string::npos);
  }
  unsetenv("ZEROSHARD_NCCL_BUFFERS");
  World(2).run(20, [](zs::Runtime &runtime, int rank) {
    int64_t x = allocate_shared(runtime, 1 << 19);
    CHECK(!runtime.comm_window(0, static_cast<double>(x)));
    (void)rank;
  });
  CHECK(network.num_registered == 4);
}

size_t num_windows() {
  std::lock_guard guard(network.lock);
  auto symmetric = [](auto &known) { return known.symmetric; };
  return static_cast<size_t>(std::count_if(network.known.begin(), network.known.end(), symmetric));
}

// While the buffer is in host memory, one rank alone has another tensor where it lay; (the fake ends the test where an
// exchange is at different places of the ranks' windows).
void a_window_is_dropped_before_its_memory_moves() {
  setenv("ZEROSHARD_NCCL_BUFFERS", "symmetric", 1);
  World(2).run(20, [](zs::Runtime &runtime, int rank) {
    const int64_t many = 1 << 19;
    auto barrier = [&] {
      collective(runtime, Collective::barrier, 0, 0, 0, 0);
      runtime.synchronize_now(-1);
    };
    int64_t whole = allocate_shared(runtime, many), other = allocate_shared(runtime, many);
    for (int64_t handle : {whole, whole, other}) CHECK(runtime.comm_window(0, static_cast<double>(handle)));
    set(runtime, whole, rank + 1);
    barrier();
    CHECK(num_windows() == 4);
    try {
      runtime.recategorize(static_cast<double>(whole), zs::kHost);
      CHECK(false);
    } catch (const zs::Error &error) {
      CHECK(error.code == "UNSUPPORTED" && error.message.find("unregister()") != std::string::npos);
    }
    runtime.comm_drop_window(0, static_cast<double>(whole));
    runtime.comm_drop_window(0, static_cast<double>(whole));  // it is none
    barrier();
    CHECK(num_windows() == 2);
    runtime.recategorize(static_cast<double>(whole), zs::kHost);
    CHECK(!runtime.comm_window(0, static_cast<double>(whole)));
    int64_t next = rank == 0 ? allocate_shared(runtime, many) : allocate(runtime, many);
    set(runtime, next, rank + 1);
    collective(runtime, Collective::all_reduce, 0, next, 0, 0);
    check_all(read(runtime, next, many), 3);
    runtime.recategorize(static_cast<double>(whole), 3);
    CHECK(runtime.comm_window(0, static_cast<double>(whole)));
    barrier();
    CHECK(num_windows() == 4);
    for (int64_t next : {whole, other}) collective(runtime, Collective::all_reduce, 0, next, 0, 0);
    check_all(read(runtime, whole, many), 3);
    barrier();
    runtime.comm_destroy();
    runtime.recategorize(static_cast<double>(other), zs::kHost);  // no window any more
    runtime.synchronize_now(-1);
  });
  CHECK(num_windows() == 0);
  unsetenv("ZEROSHARD_NCCL_BUFFERS");
}

std::mutex log_lock;
std::vector<std::pair<double, double>> computed;  // by rank 0

int32_t slow_fill(zs_call *call) {
  zs_tensor y = call->tensors[0];
  float value = static_cast<float>(call->scalars[0]);
  bool logs = call->scalars[1] == 0;
  zs::fake::queue(static_cast<zs::fake::FakeStream *>(call->stream), [=] {
    double begin = zs::fake::seconds_now();
    usleep(10000);
    std::fill_n(zs::fake::floats(y.data, y.count), y.count, value);
    if (!logs) return;
    std::lock_guard guard(log_lock);
    computed.emplace_back(begin, zs::fake::seconds_now());
  });
  return ZS_OK;
}

// As lib/parallel/tensor/linear.ts does it: memory of its own for each piece, freed when the next has its own.
void a_chunk_is_summed_while_the_next_is_computed() {
  kernels[ZS_OP_affine] = slow_fill;
  network.exchange_microseconds = 8000;
  network.exchanges.clear();
  constexpr int kChunks = 8;
  World(2).run(20, [](zs::Runtime &runtime, int rank) {
    int64_t whole = allocate_shared(runtime, kChunks * kCount);
    runtime.synchronize_now(-1);
    int64_t before = 0;
    for (int chunk = 0; chunk < kChunks; chunk++) {
      int64_t piece = allocate_shared(runtime, kCount);
      if (before) release(runtime, before);
      before = piece;
      double slow[] = {ZS_OP_affine, 0, static_cast<double>(piece), 0, static_cast<double>(chunk + rank),
                       static_cast<double>(rank)};
      runtime.run(slow);
      double view[] = {static_cast<double>(whole), static_cast<double>(chunk * kCount), ZS_F32, 1, kCount};
      int64_t into = runtime.view(view);
      collective(runtime, Collective::all_reduce, 0, into, piece, 0);
      release(runtime, into);
    }
    std::vector<float> got = read(runtime, whole, kChunks * kCount);
    for (int64_t i = 0; i < kChunks * kCount; i++)
      CHECK(got[static_cast<size_t>(i)] == static_cast<float>(2 * (i / kCount) + 1));
  });
  network.exchange_microseconds = 0;
  int beside = 0;
  for (auto &one : network.exchanges)
    beside += std::any_of(computed.begin(), computed.end(),
                          [&](auto &other) { return one.first < other.second && other.first < one.second; });
  CHECK(network.exchanges.size() == kChunks && beside >= kChunks - 2);
}

}  // namespace

int main() {
  collectives_go_between_devices_and_messages_through_the_host();
  host_tensors_pass_through_the_host();
  host_shards_are_gathered_between_devices();
  groups_are_made_by_their_members_alone();
  a_rank_that_does_not_come_ends_the_others();
  a_failure_in_the_background_is_told();
  without_a_library_or_with_one_device_all_goes_through_the_host();
  buffers_of_collectives_are_registered_where_asked();
  a_window_is_dropped_before_its_memory_moves();
  a_chunk_is_summed_while_the_next_is_computed();
  puts("device_group_test: ok");
  return 0;
}
