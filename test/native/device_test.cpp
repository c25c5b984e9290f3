// The core on a device, which is faked: no host access to its memory, streams that run late, waits by events alone,
// reuse of memory, errors that come late, host memory beside it, collectives through it.
#include "../../native/core/runtime.h"
#include "../../native/io/swap_file.h"
#include "fake_device.h"
#include "processes.h"

namespace {

using zs::fake::device;

template <class Body>
zs::Error error_of(Body body) {
  try {
    body();
  } catch (const zs::Error &error) {
    return error;
  }
  return {};
}

bool contains(const std::string &text, const char *part) { return text.find(part) != std::string::npos; }

uint64_t mix(uint64_t y, uint64_t a, uint64_t b) { return 3 * a + 5 * b + 7 * y; }

void mix_all(uint64_t *y, const uint64_t *a, const uint64_t *b, int64_t count) {
  for (int64_t i = 0; i < count; i++) y[i] = mix(y[i], a[i], b ? b[i] : 0);
}

uint64_t *values(const zs_tensor &t) {
  return t.data ? reinterpret_cast<uint64_t *>(zs::fake::real(t.data, static_cast<size_t>(t.count) * 8)) : nullptr;
}

zs::fake::FakeStream *stream_of(zs_call *call) {
  CHECK(zs::fake::attached && call->context == call->stream);  // the stream's own context
  return static_cast<zs::fake::FakeStream *>(call->stream);
}

int32_t device_mix(zs_call *call) {
  zs_tensor y = call->tensors[0], a = call->tensors[1], b = call->tensors[2];
  double delay = call->scalars[0];
  zs::fake::queue(stream_of(call), [=] {
    if (delay > 0) usleep(static_cast<useconds_t>(delay));
    mix_all(values(y), values(a), values(b), y.count);
  });
  return ZS_OK;
}

int32_t host_mix(zs_call *call) {
  const zs_tensor *t = call->tensors;
  CHECK(!call->stream);
  mix_all(static_cast<uint64_t *>(t[0].data), static_cast<const uint64_t *>(t[1].data),
          static_cast<const uint64_t *>(t[2].data), t[0].count);
  return ZS_OK;
}

int32_t device_fill(zs_call *call) {
  zs_tensor y = call->tensors[0];
  uint64_t value = static_cast<uint64_t>(call->scalars[0]);
  zs::fake::queue(stream_of(call), [=] { std::fill_n(values(y), y.count, value); });
  return ZS_OK;
}

int32_t host_fill(zs_call *call) {
  std::fill_n(static_cast<uint64_t *>(call->tensors[0].data), call->tensors[0].count,
              static_cast<uint64_t>(call->scalars[0]));
  return ZS_OK;
}

// affine: goes wrong on the device; cast: cannot be launched; gather: names itself.
int32_t failing_later(zs_call *call) {
  zs::fake::fail_later(stream_of(call), ZS_DEVICE_ERROR, "an illegal memory access was encountered");
  return ZS_OK;
}

int32_t failing_launch(zs_call *call) {
  snprintf(call->error, sizeof call->error, "invalid configuration argument");
  return ZS_DEVICE_ERROR;
}

int32_t reporting(zs_call *call) {
  zs::fake::fail_later(stream_of(call), ZS_BAD_ARGUMENT, "[gather] id 7 is outside [0, 5)");
  return ZS_OK;
}

zs_kernel device_kernels[ZS_OP_COUNT], host_kernels[ZS_OP_COUNT];

zs_backend host_backend() {
  zs_backend host = {};
  host.name = "cpu";
  host.host_memory = 1;
  host.kernels = host_kernels;
  return host;
}

const zs_backend host = host_backend();

zs_backend fake() {
  device_kernels[ZS_OP_binary] = device_mix;
  device_kernels[ZS_OP_fill] = device_fill;
  device_kernels[ZS_OP_affine] = failing_later;
  device_kernels[ZS_OP_cast] = failing_launch;
  device_kernels[ZS_OP_gather] = reporting;
  host_kernels[ZS_OP_binary] = host_mix;
  host_kernels[ZS_OP_fill] = host_fill;
  return zs::fake::table(device_kernels);
}

constexpr int kDevice = 3, kOnHost = zs::kHost;

int64_t allocate(zs::Runtime &runtime, int64_t count, int category = kDevice, bool zero = true) {
  double packet[] = {ZS_I64, static_cast<double>(category), zero ? 1.0 : 0.0, 1, static_cast<double>(count)};
  return runtime.alloc(packet);
}

int64_t view(zs::Runtime &runtime, int64_t handle, int64_t offset, int64_t count) {
  double packet[] = {static_cast<double>(handle), static_cast<double>(offset), ZS_I64, 1, static_cast<double>(count)};
  return runtime.view(packet);
}

void release(zs::Runtime &runtime, int64_t handle) {
  double packet[] = {static_cast<double>(handle)};
  runtime.free(packet);
}

void run(zs::Runtime &runtime, zs_op op, int stream, std::initializer_list<int64_t> handles, double scalar = 0) {
  double packet[40] = {static_cast<double>(op), static_cast<double>(stream)};
  int at = 2;
  for (int64_t handle : handles) packet[at++] = static_cast<double>(handle);
  packet[at] = scalar;
  runtime.run(packet);
}

void collective(zs::Runtime &runtime, zs::Collective kind, int stream, int64_t output, int64_t input, double detail) {
  double packet[] = {static_cast<double>(kind), 0, static_cast<double>(stream), static_cast<double>(output),
                     static_cast<double>(input), detail, 0, 0};
  runtime.collective(packet);
}

using Values = std::vector<uint64_t>;

Values read(zs::Runtime &runtime, int64_t handle, int64_t count, int stream = 0) {
  Values got(static_cast<size_t>(count));
  runtime.read_now(static_cast<double>(handle), got.data(), got.size() * 8, stream);
  return got;
}

void write(zs::Runtime &runtime, int64_t handle, const Values &given, int stream) {
  runtime.write(static_cast<double>(handle), given.data(), given.size() * 8, stream);
}

void nothing_is_left() {
  CHECK(device.live_events.load() == 0);
  CHECK(device.regions.empty() && device.streams.empty() && device.taken == 0);
}

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
  device.ignore_waits = true;  // the test can fail
  int wrong = 0;
  for (uint32_t seed = 1; seed <= 6; seed++) wrong += !random_work(seed, false, 1500);
  device.ignore_waits = false;
  device.max_delay_microseconds = 0;
  CHECK(wrong >= 5);
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
  the_host_cannot_touch_the_device();
  random_work_on_late_streams_equals_serial_work();
  a_stream_waits_for_no_more_than_was_queued_before();
  memory_that_is_used_again_inherits_its_hazards();
  a_full_device_gives_back_what_no_kernel_uses();
  the_limit_is_about_the_device();
  a_late_error_names_the_suspects_and_serially_the_operation();
  a_launch_that_fails_is_known_at_once_and_skips_what_depends_on_it();
  a_runtime_ends_with_work_still_queued();
  a_swap_file_takes_both_memories();
  nothing_is_left();
  puts("device_test: ok");
  return 0;
}
