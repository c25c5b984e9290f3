// The core on a faked device: errors that come late, at the launch or by report, an end with work queued, swap files,
// and collectives that pass through host memory.
#include "../../native/io/swap_file.h"
#include "device_parts.h"

namespace {

using namespace zs::device_test;

void a_late_error_names_the_suspects_and_serially_the_operation() {
  {
    zs::Runtime runtime(fake(), &host);
    int64_t x = allocate(runtime, 4), y = allocate(runtime, 4);
    run(runtime, ZS_OP_fill, 0, {x}, 1);
    run(runtime, ZS_OP_fill, 1, {y}, 2);
    runtime.synchronize_now(-1);
    run(runtime, ZS_OP_fill, 0, {x}, 3);
    run(runtime, ZS_OP_affine, 0, {x, x});
    run(runtime, ZS_OP_binary, 0, {y, x, 0});
    zs::Error error = error_of([&] { read(runtime, y, 4); });
    CHECK(error.code == "DEVICE" && contains(error.message, "illegal memory access"));
    CHECK(contains(error.message, "fill, affine, binary") && contains(error.message, "ZEROSHARD_SERIAL=1"));
    CHECK(read(runtime, y, 4)[0] == mix(2, 3, 0));  // told once, and the streams run again
    run(runtime, ZS_OP_affine, 1, {y, y});
    error = error_of([&] { runtime.synchronize_now(1); });
    CHECK(error.message == "[affine] an illegal memory access was encountered");  // nothing else it could be
    runtime.synchronize_now(-1);
    run(runtime, ZS_OP_fill, 2, {x}, 3);
    run(runtime, ZS_OP_gather, 2, {x, x, x});
    run(runtime, ZS_OP_fill, 2, {x}, 4);
    error = error_of([&] { read(runtime, x, 4, 2); });
    CHECK(error.code == "ARGUMENT" && error.message == "[gather] id 7 is outside [0, 5)");
    runtime.synchronize_now(-1);
  }
  zs::Runtime runtime(fake(), &host);
  runtime.configure(1, true, 0);
  int64_t x = allocate(runtime, 4), y = allocate(runtime, 4);
  run(runtime, ZS_OP_fill, 0, {x}, 3);
  run(runtime, ZS_OP_affine, 1, {x, x});
  run(runtime, ZS_OP_binary, 2, {y, x, 0});
  zs::Error error = error_of([&] { read(runtime, y, 4); });
  CHECK(error.message == "[affine] an illegal memory access was encountered");
  CHECK(read(runtime, y, 4)[0] == 0);  // what came after was not run
}

void a_launch_that_fails_is_known_at_once_and_skips_what_depends_on_it() {
  zs::Runtime runtime(fake(), &host);
  int64_t x = allocate(runtime, 4), y = allocate(runtime, 4), z = allocate(runtime, 4);
  runtime.synchronize_now(-1);
  run(runtime, ZS_OP_cast, 0, {x, y});
  run(runtime, ZS_OP_fill, 0, {z}, 9);
  run(runtime, ZS_OP_binary, 1, {y, x, 0});
  run(runtime, ZS_OP_fill, 2, {y}, 4);
  zs::Error error = error_of([&] { read(runtime, y, 4, 2); });
  CHECK(error.code == "DEVICE" && error.message == "[cast] invalid configuration argument");
  runtime.synchronize_now(-1);
  CHECK(read(runtime, y, 4)[0] == 0 && read(runtime, z, 4)[0] == 0);
  CHECK(error_of([&] { run(runtime, ZS_OP_matmul, 0, {x}); }).code == "UNSUPPORTED");
  device.launch_error = "the device was lost";
  zs::Error lost = error_of([&] { read(runtime, z, 4); });
  CHECK(lost.code == "DEVICE" && lost.message == "[read] the device was lost");
  CHECK(read(runtime, z, 4)[0] == 0);
}

void a_runtime_ends_with_work_still_queued() {
  device.max_delay_microseconds = 100;
  {
    zs::Runtime runtime(fake(), &host);
    int64_t y = allocate(runtime, 64), x = allocate(runtime, 64, kOnHost);
    for (int i = 0; i < 2000; i++) run(runtime, ZS_OP_binary, i % 4, {i % 7 ? y : x, i % 5 ? y : x, 0});
  }
  device.max_delay_microseconds = 0;
  nothing_is_left();
}

void a_swap_file_takes_both_memories() {
  zs::Runtime runtime(fake(), &host);
  char folder[] = "/tmp/zeroshard-device-XXXXXX";
  CHECK(mkdtemp(folder));
  int file = runtime.open_swap(std::string(folder) + "/swap", 16384, {});
  int64_t x = allocate(runtime, 512), h = allocate(runtime, 512, kOnHost);
  run(runtime, ZS_OP_fill, 0, {x}, 11);
  run(runtime, ZS_OP_fill, 1, {h}, 12);
  auto transfer = [&](bool to_file, int64_t first, int64_t second) {
    double packet[] = {to_file ? 1.0 : 0.0, static_cast<double>(file), 2, 0, static_cast<double>(first), 8192,
                       static_cast<double>(second)};
    runtime.transfer(packet);
  };
  transfer(true, x, h);
  run(runtime, ZS_OP_fill, 0, {x}, 0);
  run(runtime, ZS_OP_fill, 0, {h}, 0);
  transfer(false, h, x);
  CHECK(read(runtime, h, 512)[511] == 11 && read(runtime, x, 512)[0] == 12);
  runtime.close_swap(file);
  rmdir(folder);
}

// Each rank's device is its own; the transport is the host's.
void collectives_pass_through_host_memory(zs::test::Rank &rank) {
  constexpr int64_t kCount = 6;
  device.max_delay_microseconds = 100;
  zs::Runtime runtime(fake(), &host);
  std::string facts = runtime.comm_create(rank.rank, rank.ranks, "device-" + std::to_string(getppid()), 20);
  snprintf(rank.board.facts[rank.rank], sizeof rank.board.facts[rank.rank], "%s", facts.c_str());
  rank.board.has_facts[rank.rank].store(1);
  runtime.communicator().connect(rank.all_facts());
  using zs::Collective;
  int64_t all = kCount * rank.ranks;
  uint64_t me = static_cast<uint64_t>(rank.rank), n = static_cast<uint64_t>(rank.ranks);
  for (int round = 0; round < 12; round++) {
    int first = round % 2 ? kOnHost : kDevice, second = round % 3 ? kDevice : kOnHost;
    int64_t part = allocate(runtime, kCount, first), whole = allocate(runtime, all, second);
    int64_t other = allocate(runtime, all, first);
    run(runtime, ZS_OP_fill, 0, {part}, static_cast<double>(me + 1));
    collective(runtime, Collective::all_gather, 1, whole, part, kCount);
    Values gathered = read(runtime, whole, all);
    for (int64_t i = 0; i < all; i++) CHECK(gathered[static_cast<size_t>(i)] == static_cast<uint64_t>(i / kCount) + 1);
    collective(runtime, Collective::all_to_all, 1, other, whole, kCount);
    for (uint64_t value : read(runtime, other, all)) CHECK(value == me + 1);
    collective(runtime, Collective::all_reduce, 1, other, 0, 0);
    for (uint64_t value : read(runtime, other, all, 2)) CHECK(value == n * (n + 1) / 2);
    collective(runtime, Collective::reduce_scatter, 1, part, whole, kCount);
    for (uint64_t value : read(runtime, part, kCount)) CHECK(value == n * (me + 1));
    int64_t slot = view(runtime, whole, kCount * rank.rank, kCount);  // its own place in the output
    run(runtime, ZS_OP_fill, 0, {slot}, static_cast<double>(100 + me));
    collective(runtime, Collective::all_gather, 1, whole, slot, kCount);
    CHECK(read(runtime, whole, all)[static_cast<size_t>(all - 1)] == 100 + n - 1);
    collective(runtime, Collective::broadcast, 1, part, 0, 1);
    CHECK(read(runtime, part, kCount)[0] == n * 2);
    if (me == 0) collective(runtime, Collective::send, 1, 0, part, 1);
    if (me == 1) collective(runtime, Collective::recv, 2, part, 0, 0);
    collective(runtime, Collective::barrier, 1, 0, 0, 0);
    CHECK(read(runtime, part, kCount, 2)[kCount - 1] == n * 2);
    for (int64_t handle : {part, whole, other, slot}) release(runtime, handle);
  }
  runtime.comm_destroy();
}

}  // namespace

int main() {
  zs::test::run_ranks(2, collectives_pass_through_host_memory);
  zs::test::run_ranks(3, collectives_pass_through_host_memory);
  a_late_error_names_the_suspects_and_serially_the_operation();
  a_launch_that_fails_is_known_at_once_and_skips_what_depends_on_it();
  a_runtime_ends_with_work_still_queued();
  a_swap_file_takes_both_memories();
  nothing_is_left();
  puts("device_failures_test: ok");
  return 0;
}
