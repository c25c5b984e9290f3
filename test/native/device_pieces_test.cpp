// The host's work on device memory in pieces, on a faked device: staged collectives and the optimizers of offloaded
// states. Values, the order and the overlap of copies, and how much pinned memory that takes. Then: that a wait of the
// host holds up no launch.
#include "../../native/core/pieces.h"
#include "device_parts.h"

namespace {

using namespace zs::device_test;
using zs::Collective;

constexpr int64_t kMiB = 131072;  // elements
constexpr size_t kMostPinned = 4 * zs::kPieceBytes + 65536;

std::mutex log_lock;
std::vector<zs::fake::CopyRun> worked;  // by host kernels

int count(int32_t direction) {
  int found = 0;
  for (auto &one : device.copies) found += one.direction == direction;
  return found;
}

// How many of the first runs ran at the same time as one of the second.
int overlaps(const std::vector<zs::fake::CopyRun> &first, const std::vector<zs::fake::CopyRun> &second) {
  int found = 0;
  for (auto &a : first)
    for (auto &b : second)
      if (a.begin < b.end && b.begin < a.end) {
        found++;
        break;
      }
  return found;
}

std::vector<zs::fake::CopyRun> copies(int32_t direction) {
  std::vector<zs::fake::CopyRun> found;
  for (auto &one : device.copies)
    if (one.direction == direction) found.push_back(one);
  return found;
}

// adamw: all five are written; what comes first is a sum with the scalar, so that each element shows what it was given.
int32_t host_adamw(zs_call *call) {
  const zs_tensor *t = call->tensors;
  double begin = zs::fake::seconds_now();
  if (device.copy_microseconds) usleep(static_cast<useconds_t>(5 * device.copy_microseconds));
  auto *param = static_cast<uint64_t *>(t[0].data), *m = static_cast<uint64_t *>(t[1].data);
  auto *out = static_cast<uint64_t *>(t[3].data), *grad = static_cast<uint64_t *>(t[4].data);
  CHECK(!t[2].data && t[5].count == 1);
  for (int64_t i = 0; i < t[0].count; i++) {
    m[i] += grad[i] + *static_cast<uint64_t *>(t[5].data);
    param[i] += 2 * m[i];
    out[i] = param[i];
    grad[i] = 0;
  }
  std::lock_guard guard(log_lock);
  worked.push_back({-1, begin, zs::fake::seconds_now()});
  return ZS_OK;
}

void adamw(zs::Runtime &runtime, int64_t param, int64_t m, int64_t out, int64_t grad, int64_t norm) {
  run(runtime, ZS_OP_adamw, 0, {param, m, 0, out, grad, norm}, 0);
}

void ramp(zs::Runtime &runtime, int64_t handle, int64_t count, uint64_t factor) {
  Values given(static_cast<size_t>(count));
  for (size_t i = 0; i < given.size(); i++) given[i] = factor * i;
  write(runtime, handle, given, 0);
}

void an_update_of_offloaded_states_goes_in_pieces() {
  device.copy_microseconds = 5000;
  device.copies.clear();
  {
    zs::Runtime runtime(fake(), &host);
    for (int64_t count_of : {int64_t{3}, 24 * kMiB + 17}) {
      worked.clear();
      int64_t param = allocate(runtime, count_of, kOnHost), m = allocate(runtime, count_of, kOnHost);
      int64_t out = allocate(runtime, count_of), grad = allocate(runtime, count_of), norm = allocate(runtime, 1);
      run(runtime, ZS_OP_fill, 0, {norm}, 5);
      run(runtime, ZS_OP_fill, 0, {param}, 1);
      runtime.synchronize_now(-1);
      size_t states = device.most_pinned = device.pinned;
      for (uint64_t step = 1; step <= 2; step++) {
        ramp(runtime, grad, count_of, step);
        if (step == 2) {
          runtime.synchronize_now(-1);
          device.copies.clear();
          worked.clear();
        }
        adamw(runtime, param, m, out, grad, norm);
      }
      Values got = read(runtime, out, count_of), left = read(runtime, grad, count_of), same = read(runtime, param, count_of);
      for (size_t i = 0; i < got.size(); i++) {
        uint64_t first = i + 5, second = first + 2 * i + 5;
        CHECK(got[i] == 1 + 2 * first + 2 * second && same[i] == got[i] && left[i] == 0);
      }
      for (int64_t handle : {param, m, out, grad, norm}) release(runtime, handle);
      if (count_of == 3) continue;
      // 48 MiB up and as much down: 12 pieces. Each copy down of the next ran beside the work on one, as did
      // the copies up of the one before.
      int pieces = static_cast<int>(worked.size());
      CHECK(pieces >= 12 && count(ZS_TO_DEVICE_PINNED) == 2 * pieces);
      auto down = copies(ZS_TO_HOST_PINNED), up = copies(ZS_TO_DEVICE_PINNED);
      CHECK(overlaps(worked, down) >= pieces / 2 && overlaps(worked, up) >= pieces / 2);
      for (size_t i = 1; i < worked.size(); i++) CHECK(worked[i].begin >= worked[i - 1].end);
      CHECK(device.most_pinned <= states + kMostPinned);
    }
  }
  device.copy_microseconds = 0;
  nothing_is_left();
}

void work_that_fails_leaves_no_copy_under_way() {
  zs::Runtime runtime(fake(), &host);
  host_kernels[ZS_OP_sgd] = [](zs_call *call) -> int32_t {
    snprintf(call->error, sizeof call->error, "not today");
    return ZS_BAD_ARGUMENT;
  };
  device.copy_microseconds = 2000;
  int64_t param = allocate(runtime, 2 * kMiB, kOnHost), grad = allocate(runtime, 2 * kMiB);
  run(runtime, ZS_OP_sgd, 0, {param, 0, 0, grad, 0}, 0);
  zs::Error error = error_of([&] { read(runtime, grad, 2 * kMiB); });
  CHECK(error.code == "ARGUMENT" && error.message == "[sgd] not today");
  run(runtime, ZS_OP_fill, 0, {grad}, 4);
  CHECK(read(runtime, grad, 2 * kMiB)[7] == 4);
  device.copy_microseconds = 0;
}

// Each rank's device is its own. Counts that no piece divides.
void staged_collectives_go_in_pieces(zs::test::Rank &rank) {
  zs::Runtime runtime(fake(), &host);
  std::string facts = runtime.comm_create(rank.rank, rank.ranks, "pieces-" + std::to_string(getppid()), 60);
  snprintf(rank.board.facts[rank.rank], sizeof rank.board.facts[rank.rank], "%s", facts.c_str());
  rank.board.has_facts[rank.rank].store(1);
  runtime.communicator().connect(rank.all_facts());
  const int64_t n = 8 * kMiB + 5, all = n * rank.ranks;
  const uint64_t me = static_cast<uint64_t>(rank.rank), ranks = static_cast<uint64_t>(rank.ranks);
  for (int round = 0; round < 3; round++) {
    // In the third round one of the two lies in host memory.
    int64_t part = allocate(runtime, n, round == 2 ? kOnHost : kDevice), whole = allocate(runtime, all);
    int64_t other = allocate(runtime, all, round == 2 ? kOnHost : kDevice);
    device.copy_microseconds = round == 1 ? 10000 : 0;
    ramp(runtime, part, n, me + 1);
    collective(runtime, Collective::all_gather, 1, whole, part, static_cast<double>(n));
    Values got = read(runtime, whole, all);
    for (int64_t i = 0; i < all; i += 13)
      CHECK(got[static_cast<size_t>(i)] == static_cast<uint64_t>((i / n + 1) * (i % n)));
    collective(runtime, Collective::all_to_all, 1, other, whole, static_cast<double>(n));
    got = read(runtime, other, all);
    for (int64_t i = 0; i < all; i += 13) CHECK(got[static_cast<size_t>(i)] == (me + 1) * static_cast<uint64_t>(i % n));
    device.copies.clear();
    collective(runtime, Collective::all_reduce, 1, other, 0, 0);
    got = read(runtime, other, all);
    for (int64_t i = 0; i < all; i += 13)
      CHECK(got[static_cast<size_t>(i)] == ranks * (ranks + 1) / 2 * static_cast<uint64_t>(i % n));
    if (round == 1) {
      auto down = copies(ZS_TO_HOST_PINNED), up = copies(ZS_TO_DEVICE_PINNED);
      CHECK(up.size() >= 4 && down.size() >= up.size());
      CHECK(overlaps(up, down) >= (static_cast<int>(up.size()) - 2) / 2);  // the last two have nothing to run beside
      CHECK(device.most_pinned <= kMostPinned);
    }
    collective(runtime, Collective::reduce_scatter, 1, part, whole, static_cast<double>(n));
    got = read(runtime, part, n);
    for (int64_t i = 0; i < n; i += 13)
      CHECK(got[static_cast<size_t>(i)] == ranks * (me + 1) * static_cast<uint64_t>(i));
    // In place, as ZeRO's stage 1 has it: the sum comes to lie in this rank's part of the input, for the first at its start.
    const int64_t own = view(runtime, whole, me * n, n);
    collective(runtime, Collective::reduce_scatter, 1, own, whole, static_cast<double>(n));
    got = read(runtime, own, n);
    for (int64_t i = 0; i < n; i += 13)
      CHECK(got[static_cast<size_t>(i)] == ranks * (me + 1) * static_cast<uint64_t>(i));
    release(runtime, own);
    collective(runtime, Collective::broadcast, 1, part, 0, 1);
    CHECK(read(runtime, part, n)[static_cast<size_t>(n - 1)] == ranks * 2 * static_cast<uint64_t>(n - 1));
    for (int64_t handle : {part, whole, other}) release(runtime, handle);
  }
  device.copy_microseconds = 0;
  runtime.comm_destroy();
}

void a_wait_of_the_host_holds_up_no_launch() {
  {
    zs::Runtime runtime(fake(), &host);
    int64_t slow = allocate(runtime, 8), x = allocate(runtime, 8);
    run(runtime, ZS_OP_fill, 0, {x}, 3);
    runtime.synchronize_now(-1);
    std::atomic<int> told{0};
    Values got(8, 0);
    run(runtime, ZS_OP_binary, 0, {slow, slow, 0}, 500000);
    double start = zs::test::now();
    int before = num_fills;
    runtime.synchronize(0, [&](std::shared_ptr<zs::Failure> failure) {
      CHECK(!failure);
      told++;
    });
    runtime.read(static_cast<double>(x), got.data(), 64, 0, [&](std::shared_ptr<zs::Failure> failure) {
      CHECK(!failure && got[7] == 3);  // as it was then
      told++;
    });
    run(runtime, ZS_OP_fill, 0, {x}, 4);
    while (num_fills == before && zs::test::now() - start < 5) zs::test::rest(0.001);
    CHECK(zs::test::now() - start < 0.3 && told == 0);  // launched while the slow one runs
    CHECK(read(runtime, x, 8)[0] == 4 && told == 2);
  }
  nothing_is_left();
}

// What is found while the stream goes on: every wait before the user is told fails alike, and later work runs.
void a_failure_found_beside_the_stream_is_told_by_all_that_waited() {
  {
    zs::Runtime runtime(fake(), &host);
    int64_t x = allocate(runtime, 8);
    runtime.synchronize_now(-1);
    std::shared_ptr<zs::Failure> failures[3];
    std::atomic<int> told{0};
    run(runtime, ZS_OP_gather, 0, {x, x, x});
    for (auto &failure : failures)
      runtime.synchronize(0, [&](std::shared_ptr<zs::Failure> found) { failure = found, told++; });
    while (told < 3) zs::test::rest(0.001);
    CHECK(failures[0] && failures[0] == failures[1] && failures[0] == failures[2]);
    int before = num_fills;
    run(runtime, ZS_OP_fill, 0, {x}, 6);  // skipped: nobody was told
    CHECK(error_of([&] { read(runtime, x, 8); }).message == "[gather] id 7 is outside [0, 5)" && num_fills == before);
    run(runtime, ZS_OP_fill, 0, {x}, 7);
    CHECK(read(runtime, x, 8)[0] == 7);
    std::atomic<bool> never{false};  // a runtime that ends tells nobody
    run(runtime, ZS_OP_binary, 0, {x, x, 0}, 100000);
    runtime.synchronize(0, [&](std::shared_ptr<zs::Failure>) { never = true; });
  }
  nothing_is_left();
}

}  // namespace

int main() {
  host_kernels[ZS_OP_adamw] = host_adamw;
  zs::test::run_ranks(2, staged_collectives_go_in_pieces);
  zs::test::run_ranks(3, staged_collectives_go_in_pieces);
  an_update_of_offloaded_states_goes_in_pieces();
  work_that_fails_leaves_no_copy_under_way();
  a_wait_of_the_host_holds_up_no_launch();
  a_failure_found_beside_the_stream_is_told_by_all_that_waited();
  nothing_is_left();
  puts("device_pieces_test: ok");
  return 0;
}
