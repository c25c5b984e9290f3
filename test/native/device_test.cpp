// The core on a device, which is faked: no host access to its memory, streams that run late, waits by events alone,
// reuse of memory, host memory beside it.
#include "device_parts.h"

namespace {

using namespace zs::device_test;

void the_host_cannot_touch_the_device() {
  {
    zs::Runtime runtime(fake(), &host);
    int64_t x = allocate(runtime, 4), y = allocate(runtime, 4, kOnHost);
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(::write(ends[1], runtime.memory().find(static_cast<double>(x)).range.data, 8) < 0 && errno == EFAULT);
    CHECK(::write(ends[1], runtime.memory().find(static_cast<double>(y)).range.data, 8) == 8);
    close(ends[0]), close(ends[1]);
  }
  nothing_is_left();
}

// Storages on the device and in host memory, in pieces; each step mixes, writes, reads, replaces a storage, moves it
// to the other memory, or copies it whole. True where all is as the oracle says.
bool random_work(uint32_t seed, bool serial, int steps) {
  constexpr int kStorages = 7, kPieces = 3, kPiece = 16, kWhole = kPieces * kPiece;
  zs::Runtime runtime(fake(), &host);
  runtime.configure(2, serial, 0);
  std::mt19937 random(seed);
  auto below = [&random](int end) { return static_cast<int>(random() % static_cast<unsigned>(end)); };
  int64_t storages[kStorages], pieces[kStorages][kPieces];
  int categories[kStorages];
  Values oracle[kStorages];
  auto make = [&](int i) {
    categories[i] = below(4) == 0 ? kOnHost : kDevice;
    storages[i] = allocate(runtime, kWhole, categories[i]);
    for (int p = 0; p < kPieces; p++) pieces[i][p] = view(runtime, storages[i], p * kPiece, kPiece);
    oracle[i].assign(kWhole, 0);
  };
  for (int i = 0; i < kStorages; i++) make(i);
  bool right = true;
  for (int step = 0; step < steps && right; step++) {
    int kind = below(40), stream = below(zs::kNumStreams);
    int y = below(kStorages), a = below(kStorages), b = below(kStorages);
    int yp = below(kPieces), ap = below(kPieces), bp = below(kPieces);
    if (kind == 0) {
      for (int64_t piece : pieces[y]) release(runtime, piece);
      release(runtime, storages[y]);
      make(y);
    } else if (kind == 1) {
      Values given(kPiece, random());
      write(runtime, pieces[y][yp], given, stream);
      std::copy(given.begin(), given.end(), oracle[y].begin() + yp * kPiece);
    } else if (kind == 2) {
      right = read(runtime, storages[y], kWhole, stream) == oracle[y];
    } else if (kind == 3) {
      categories[y] = categories[y] == kOnHost ? kDevice : kOnHost;
      runtime.recategorize(static_cast<double>(pieces[y][yp]), categories[y]);
    } else if (kind == 4 && y != a) {
      collective(runtime, zs::Collective::all_gather, stream, storages[y], storages[a], kWhole);
      oracle[y] = oracle[a];
    } else {
      bool has_b = below(3) > 0;
      run(runtime, ZS_OP_binary, stream, {pieces[y][yp], pieces[a][ap], has_b ? pieces[b][bp] : 0});
      Values zeros(kPiece, 0);
      Values input(oracle[a].begin() + ap * kPiece, oracle[a].begin() + (ap + 1) * kPiece);
      Values other(oracle[b].begin() + bp * kPiece, oracle[b].begin() + (bp + 1) * kPiece);
      mix_all(&oracle[y][static_cast<size_t>(yp * kPiece)], input.data(), has_b ? other.data() : zeros.data(), kPiece);
    }
  }
  for (int i = 0; i < kStorages; i++) right = right && read(runtime, storages[i], kWhole, i % 3) == oracle[i];
  return right;
}

void random_work_on_late_streams_equals_serial_work() {
  device.max_delay_microseconds = 200;
  for (uint32_t seed = 1; seed <= 6; seed++) CHECK(random_work(seed, false, 1500));
  for (uint32_t seed = 1; seed <= 2; seed++) CHECK(random_work(seed, true, 600));
  nothing_is_left();
#if !defined(__SANITIZE_THREAD__)  // which would find these races, as it should
  device.ignore_waits = true;  // the test can fail
  int wrong = 0;
  for (uint32_t seed = 1; seed <= 6; seed++) wrong += !random_work(seed, false, 1500);
  device.ignore_waits = false;
  CHECK(wrong >= 5);
#endif
  device.max_delay_microseconds = 0;
  nothing_is_left();
}

void a_stream_waits_for_no_more_than_was_queued_before() {
  zs::Runtime runtime(fake(), &host);
  int64_t x = allocate(runtime, 8), y = allocate(runtime, 8), apart = allocate(runtime, 8);
  read(runtime, apart, 8);
  run(runtime, ZS_OP_fill, 0, {x}, 3);
  run(runtime, ZS_OP_binary, 1, {y, x, 0});
  run(runtime, ZS_OP_binary, 0, {apart, apart, 0}, 400000);
  double start = zs::test::now();
  CHECK(read(runtime, y, 8, 1)[0] == mix(0, 3, 0));
  CHECK(zs::test::now() - start < 0.3);
}

void memory_that_is_used_again_inherits_its_hazards() {
  device.max_delay_microseconds = 300;
  {
    zs::Runtime runtime(fake(), &host);
    for (int i = 0; i < 200; i++) {
      int category = i % 3 == 0 ? kOnHost : kDevice;
      int64_t slow = allocate(runtime, 512, category, false);
      run(runtime, ZS_OP_fill, 1, {slow}, 1);
      run(runtime, ZS_OP_binary, 1, {slow, slow, 0}, 100);
      release(runtime, slow);  // still in use by stream 1
      int64_t next = allocate(runtime, 512, category, false);
      if (i % 2) run(runtime, ZS_OP_fill, 2, {next}, 77);
      else write(runtime, next, Values(512, 77), i % 4);
      for (uint64_t value : read(runtime, next, 512, i % 3)) CHECK(value == 77);
      release(runtime, next);
    }
    for (int i = 0; i < 100; i++) {  // zeros after another stream's work
      int64_t dirty = allocate(runtime, 64, i % 2 ? kOnHost : kDevice, false);
      run(runtime, ZS_OP_fill, 1 + i % 2, {dirty}, 5);
      release(runtime, dirty);
      int64_t clean = allocate(runtime, 64, i % 2 ? kOnHost : kDevice, true);
      for (uint64_t value : read(runtime, clean, 64, 2)) CHECK(value == 0);
      release(runtime, clean);
    }
  }
  device.max_delay_microseconds = 0;
  nothing_is_left();
}

// real() would end the test where a kernel comes to memory that was given back.
void a_full_device_gives_back_what_no_kernel_uses() {
  constexpr int64_t kMiB = 131072;  // elements
  device.limit = size_t{96} << 20;
  {
    zs::Runtime runtime(fake(), &host);
    for (int i = 0; i < 12; i++) {
      int64_t count = (20 + 7 * (i % 4)) * kMiB;
      int64_t a = allocate(runtime, count, kDevice, false), b = allocate(runtime, count / 2, kDevice, false);
      run(runtime, ZS_OP_fill, i % 3, {a}, i);
      int64_t left = view(runtime, a, 0, 64), right = view(runtime, a, 64, 64);
      run(runtime, ZS_OP_binary, 1, {left, right, 0}, 3000);
      run(runtime, ZS_OP_fill, 2, {b}, i);
      CHECK(device.taken <= device.limit);
      for (int64_t handle : {left, right, a, b}) release(runtime, handle);
      if (i == 5) {
        zs::Error error = error_of([&] { allocate(runtime, 200 * kMiB); });
        CHECK(error.code == "OUT_OF_MEMORY" && contains(error.message, "activations"));
      }
      int64_t on_host = allocate(runtime, 200 * kMiB, kOnHost, false);  // of which there is more
      release(runtime, on_host);
    }
  }
  device.limit = SIZE_MAX;
  nothing_is_left();
}

void the_limit_is_about_the_device() {
  zs::Runtime runtime(fake(), &host);
  runtime.configure(1, false, 4096);
  int64_t a = allocate(runtime, 256, kDevice, false), b = allocate(runtime, 256, kDevice, false);
  CHECK(error_of([&] { allocate(runtime, 1); }).code == "OUT_OF_MEMORY");
  allocate(runtime, 4096, kOnHost);
  runtime.recategorize(static_cast<double>(a), kOnHost);
  int64_t c = allocate(runtime, 256, kDevice, false);
  CHECK(runtime.memory().stats().live[kOnHost] == (4096 + 256) * 8 && runtime.memory().stats().live[kDevice] == 4096);
  release(runtime, b);
  release(runtime, c);
}

}  // namespace

int main() {
  the_host_cannot_touch_the_device();
  random_work_on_late_streams_equals_serial_work();
  a_stream_waits_for_no_more_than_was_queued_before();
  memory_that_is_used_again_inherits_its_hazards();
  a_full_device_gives_back_what_no_kernel_uses();
  the_limit_is_about_the_device();
  nothing_is_left();
  puts("device_test: ok");
  return 0;
}
