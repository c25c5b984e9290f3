// Graphs of the core on a faked device: what is captured and launched does what the same work does without, in any order
// that was not asked to be kept; scalars change; memory stays; what cannot be captured says so and nothing is lost.
#include "device_parts.h"
#include "fake_graphs.h"

namespace {

using namespace zs::device_test;

zs_backend with_graphs() {
  zs_backend made = fake();
  made.graphs = &zs::fake::graphs;
  return made;
}

int run_live(zs::Runtime &runtime, zs_op op, std::initializer_list<int64_t> handles, double scalar) {
  double packet[40] = {static_cast<double>(op), 0};
  int at = 2;
  for (int64_t handle : handles) packet[at++] = static_cast<double>(handle);
  packet[at] = scalar;
  return runtime.run_live(packet);
}

void launch(zs::Runtime &runtime, int graph, std::vector<double> changes = {}) {
  runtime.graph_launch(graph, changes.data(), changes.size());
}

constexpr int kStorages = 5, kCount = 24;

// Work on several streams, with tensors that come and go; `values`: what the live fills fill in.
std::vector<int> work(zs::Runtime &runtime, const int64_t *storages, uint32_t seed, const double *values, bool live) {
  std::mt19937 random(seed);
  auto below = [&random](int end) { return static_cast<int>(random() % static_cast<unsigned>(end)); };
  std::vector<int> calls;
  std::vector<int64_t> mine;
  auto any = [&] {
    int at = below(kStorages + static_cast<int>(mine.size()));
    return at < kStorages ? storages[at] : mine[static_cast<size_t>(at - kStorages)];
  };
  for (int step = 0; step < 120; step++) {
    int kind = below(12), stream = below(3);
    if (kind == 0) {
      double value = values[calls.size() % 3];
      int64_t target = any();
      if (live) calls.push_back(run_live(runtime, ZS_OP_fill, {target}, value));
      else {
        run(runtime, ZS_OP_fill, 0, {target}, value);
        calls.push_back(0);
      }
    } else if (kind == 1) {
      mine.push_back(allocate(runtime, kCount, kDevice, below(2) == 0));
      run(runtime, ZS_OP_fill, stream, {mine.back()}, below(100));
    } else if (kind == 2 && !mine.empty()) {
      release(runtime, mine.back());
      mine.pop_back();
    } else if (kind == 3) {
      collective(runtime, zs::Collective::all_gather, stream, any(), storages[below(kStorages)], kCount);
    } else {
      run(runtime, ZS_OP_binary, stream, {any(), any(), below(2) ? any() : 0});
    }
  }
  for (int64_t handle : mine) release(runtime, handle);
  return calls;
}

struct World {
  zs::Runtime runtime{with_graphs(), &host};
  int64_t storages[kStorages];
  explicit World(bool serial = false) {
    runtime.configure(1, serial, 0);
    for (int i = 0; i < kStorages; i++) {
      storages[i] = allocate(runtime, kCount);
      run(runtime, ZS_OP_fill, i % 3, {storages[i]}, i + 1);
    }
  }
  Values all() {
    Values together;
    for (int64_t handle : storages)
      for (uint64_t value : read(runtime, handle, kCount, static_cast<int>(handle % 3))) together.push_back(value);
    return together;
  }
};

bool launches_equal_eager(uint32_t seed, bool serial) {
  World eager(serial), captured(serial);
  double values[3] = {7, 8, 9};
  work(captured.runtime, captured.storages, seed, values, false);  // the first time as ever
  work(eager.runtime, eager.storages, seed, values, false);
  captured.runtime.graph_begin();
  std::vector<int> calls = work(captured.runtime, captured.storages, seed, values, true);
  int graph = captured.runtime.graph_end(false);
  Values before = captured.all();
  if (before != eager.all()) return false;  // a capture does nothing
  for (int round = 0; round < 6; round++) {
    for (double &value : values) value += round + 1;
    work(eager.runtime, eager.storages, seed, values, false);
    std::vector<double> changes;
    for (size_t i = 0; i < calls.size(); i++)
      changes.insert(changes.end(), {static_cast<double>(calls[i]), values[i % 3]});
    launch(captured.runtime, graph, changes);
    // What is queued in between, on any stream, is before the next launch and after this one.
    for (World *world : {&eager, &captured}) {
      int64_t between = allocate(world->runtime, kCount);
      run(world->runtime, ZS_OP_binary, 1 + round % 2, {between, world->storages[0], world->storages[1]});
      run(world->runtime, ZS_OP_binary, 2, {world->storages[round % kStorages], between, 0});
      release(world->runtime, between);
    }
    if (round % 2 == 0 && captured.all() != eager.all()) return false;
  }
  bool right = captured.all() == eager.all();
  captured.runtime.graph_drop(graph);
  return right;
}

void a_launch_equals_the_same_work_done_eagerly() {
  device.max_delay_microseconds = 100;
  for (uint32_t seed = 1; seed <= 12; seed++) CHECK(launches_equal_eager(seed, seed % 4 == 0));
  nothing_is_left();
#ifndef __SANITIZE_THREAD__
  device.ignore_waits = true;  // the same, with no order between streams
  int wrong = 0;
  for (uint32_t seed = 1; seed <= 6; seed++) wrong += !launches_equal_eager(seed, false);
  device.ignore_waits = false;
  CHECK(wrong >= 5);
#endif
  device.max_delay_microseconds = 0;
  nothing_is_left();
}

std::string reason_of(World &world, const std::function<void()> &body) {
  world.runtime.graph_begin();
  zs::Error thrown = error_of(body);
  zs::Error error = error_of([&] { world.runtime.graph_end(false); });
  CHECK(error.code == "UNSUPPORTED" || error.code == "DEVICE");
  if (!thrown.code.empty()) CHECK(thrown.message == error.message);
  return error.message;
}

void what_cannot_be_captured_says_so_and_nothing_is_lost() {
  {
    World world;
    zs::Runtime &r = world.runtime;
    int64_t x = world.storages[0], y = world.storages[1];
    int64_t on_host = allocate(r, kCount, kOnHost);
    Values before = world.all();
    auto fails = [&](const char *reason, const std::function<void()> &body) {
      std::string got = reason_of(world, [&] {
        run(r, ZS_OP_binary, 0, {x, y, 0});  // lost with the rest
        body();
        run(r, ZS_OP_binary, 1, {y, x, 0});
      });
      if (!contains(got, reason)) fprintf(stderr, "'%s' instead of '%s'\n", got.c_str(), reason);
      CHECK(contains(got, reason));
      CHECK(world.all() == before);
    };
    fails("a read by the host", [&] { read(r, x, kCount); });
    fails("a write from the host", [&] { write(r, x, Values(kCount, 1), 0); });
    fails("a wait for the device", [&] { r.synchronize_now(-1); });
    fails("work on host memory", [&] { run(r, ZS_OP_binary, 0, {x, on_host, 0}); });
    fails("a move between host and device", [&] { r.recategorize(static_cast<double>(x), kOnHost); });
    fails("the host works on it", [&] { collective(r, zs::Collective::broadcast, 1, on_host, x, 0); });
    fails("the host works on it", [&] { collective(r, zs::Collective::all_gather, 1, x, on_host, kCount); });
    fails("[cast] invalid configuration", [&] { run(r, ZS_OP_cast, 2, {x, y}); });
  }
  nothing_is_left();
}

void misuse_is_refused() {
  World world;
  zs::Runtime &r = world.runtime;
  CHECK(error_of([&] { r.graph_end(false); }).code == "ARGUMENT");
  CHECK(error_of([&] { launch(r, 0); }).code == "ARGUMENT");
  CHECK(error_of([&] { run_live(r, ZS_OP_fill, {world.storages[0]}, 1); }).code == "ARGUMENT");
  r.graph_begin();
  CHECK(contains(error_of([&] { r.graph_begin(); }).message, "end that first"));
  int call = run_live(r, ZS_OP_fill, {world.storages[0]}, 1);
  int graph = r.graph_end(false);
  CHECK(call == 0);
  CHECK(contains(error_of([&] { launch(r, graph, {1, 5}); }).message, "call of the graph"));
  CHECK(contains(error_of([&] { launch(r, graph, {0}); }).message, "takes 1 scalars"));
  CHECK(contains(error_of([&] { r.recategorize(static_cast<double>(world.storages[0]), kOnHost); }).message,
                 "drop the graph first"));
  r.graph_begin();
  CHECK(contains(error_of([&] { launch(r, graph); }).message, "cannot be part"));
  CHECK(r.graph_end(true) == -1);
  launch(r, graph, {0, 6});
  CHECK(read(r, world.storages[0], kCount)[3] == 6);
  r.graph_drop(graph);
  CHECK(error_of([&] { launch(r, graph); }).code == "ARGUMENT");
  zs::Runtime without(fake(), &host);
  CHECK(contains(error_of([&] { without.graph_begin(); }).message, "no graphs"));
}

void constants_are_written_at_each_launch() {
  {
    World world;
    zs::Runtime &r = world.runtime;
    r.graph_begin();
    int64_t x = allocate(r, kCount, kDevice, false);
    Values given(kCount, 41);
    r.write(static_cast<double>(x), given.data(), given.size() * 8, 2, true);
    given.assign(kCount, 0);  // whose memory is the caller's again
    run(r, ZS_OP_binary, 1, {world.storages[2], x, 0});
    release(r, x);
    int graph = r.graph_end(false);
    uint64_t value = 3;
    for (int i = 0; i < 3; i++) {
      launch(r, graph);
      value = mix(value, 41, 0);
      CHECK(read(r, world.storages[2], kCount)[7] == value);
    }
    r.graph_drop(graph);
  }
  nothing_is_left();
}

void a_graph_keeps_its_memory_and_gives_it_back() {
  {
    World world;
    zs::Runtime &r = world.runtime;
    constexpr int64_t kBig = 1 << 18;  // elements: 2 MiB
    int64_t kept = allocate(r, kCount), outside = allocate(r, kCount);
    run(r, ZS_OP_fill, 0, {outside}, 11);
    r.synchronize_now(-1);
    r.memory().reset_peak();
    zs::Memory::Stats before = r.memory().stats();
    r.graph_begin();
    int64_t first = allocate(r, kBig), second = allocate(r, kBig);
    release(r, first);
    int64_t third = allocate(r, kBig);  // the first's memory
    run(r, ZS_OP_fill, 1, {third}, 3);
    run(r, ZS_OP_binary, 0, {second, third, 0});
    int64_t part = view(r, second, 0, kCount);
    run(r, ZS_OP_binary, 0, {kept, part, outside});
    release(r, part);
    int64_t result = allocate(r, kCount);  // alive at the end, and zeroed by each launch
    run(r, ZS_OP_binary, 2, {result, kept, 0});
    release(r, second);
    release(r, third);
    int graph = r.graph_end(false);
    zs::Memory::Stats after = r.memory().stats();
    int64_t peak = before.live[kDevice] + 2 * kBig * 8;
    CHECK(after.peak[kDevice] >= peak && after.peak[kDevice] <= peak + kCount * 8);
    CHECK(after.reserved - before.reserved >= 4 << 20);
    r.memory().reset_peak();
    launch(r, graph);
    CHECK(r.memory().stats().peak[kDevice] == after.peak[kDevice]);  // as if it had been allocated
    release(r, outside);  // which the graph still reads
    int64_t other = allocate(r, kCount, kDevice, false);
    run(r, ZS_OP_fill, 0, {other}, 99);
    for (int i = 0; i < 20; i++) {  // none of it may be the graph's
      int64_t dirty = allocate(r, kBig, kDevice, false);
      run(r, ZS_OP_fill, i % 3, {dirty}, 77);
      release(r, dirty);
    }
    uint64_t expected = read(r, kept, kCount)[0];
    launch(r, graph);
    // kept = 3 * second + 5 * outside + 7 * kept, second = 3 * 3 + 7 * 0
    CHECK(read(r, kept, kCount)[5] == mix(expected, 9, 11));
    CHECK(read(r, result, kCount)[0] == mix(0, mix(expected, 9, 11), 0));
    size_t taken = device.taken;
    r.graph_drop(graph);
    CHECK(device.taken == taken);  // result lies there
    CHECK(read(r, result, kCount)[0] == mix(0, mix(expected, 9, 11), 0));
    release(r, result);
    CHECK(device.taken < taken);
    CHECK(zs::fake::live_graphs == 0 && zs::fake::live_places == 0);
  }
  nothing_is_left();
}

void a_device_that_fails_in_a_launch_is_told_at_the_next_read() {
  World world;
  zs::Runtime &r = world.runtime;
  r.graph_begin();
  run(r, ZS_OP_affine, 0, {world.storages[0], world.storages[1]});
  int graph = r.graph_end(false);
  launch(r, graph);
  zs::Error error = error_of([&] { read(r, world.storages[0], kCount); });
  CHECK(error.code == "DEVICE" && contains(error.message, "illegal memory access"));
  CHECK(contains(error.message, "graph"));
  CHECK(read(r, world.storages[1], kCount)[0] == 2);
}

void a_runtime_may_end_with_a_graph_or_a_capture() {
  {
    World world;
    world.runtime.graph_begin();
    run(world.runtime, ZS_OP_fill, 0, {world.storages[0]}, 1);
    int graph = world.runtime.graph_end(false);
    for (int i = 0; i < 5; i++) launch(world.runtime, graph);
    world.runtime.graph_begin();
    run(world.runtime, ZS_OP_fill, 1, {world.storages[0]}, 1);
  }
  CHECK(zs::fake::live_graphs == 0);
  nothing_is_left();
}

}  // namespace

int main() {
  misuse_is_refused();
  what_cannot_be_captured_says_so_and_nothing_is_lost();
  constants_are_written_at_each_launch();
  a_graph_keeps_its_memory_and_gives_it_back();
  a_launch_equals_the_same_work_done_eagerly();
  a_device_that_fails_in_a_launch_is_told_at_the_next_read();
  a_runtime_may_end_with_a_graph_or_a_capture();
  nothing_is_left();
  puts("graph_test: ok");
  return 0;
}
