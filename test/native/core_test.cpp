// The core without Node-API, on kernels of its own: hazards between streams against a serial oracle,
// failures, handles, accounting, the allocator, the pool under several callers. Made for sanitizers.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "../../native/backend/cpu/backend.h"
#include "../../native/core/runtime.h"
#include "check.h"

namespace {

template <class Body>
std::string code_of(Body body) {
  try {
    body();
  } catch (const zs::Error &error) {
    return error.code;
  }
  return "";
}

void dawdle(int64_t turns) {
  for (int64_t i = 0; i < turns; i++) asm volatile("");
}

// y = 3 a + 5 b + 7 y + scalar, in wrapping arithmetic, so that any wrong order shows.
uint64_t mix(uint64_t y, uint64_t a, uint64_t b) { return 3 * a + 5 * b + 7 * y; }

int32_t mix_kernel(zs_call *call) {
  const zs_tensor *t = call->tensors;
  uint64_t *y = static_cast<uint64_t *>(t[0].data);
  const uint64_t *a = static_cast<const uint64_t *>(t[1].data);
  const uint64_t *b = static_cast<const uint64_t *>(t[2].data);
  int64_t count = t[0].count;
  dawdle(static_cast<int64_t>(call->scalars[0]));
  for (int64_t i = 0; i < count; i++) y[i] = mix(y[i], a[i], b ? b[i] : 0);
  return ZS_OK;
}

int32_t fill_kernel(zs_call *call) {
  int64_t *y = static_cast<int64_t *>(call->tensors[0].data);
  for (int64_t i = 0; i < call->tensors[0].count; i++) y[i] = static_cast<int64_t>(call->scalars[0]);
  return ZS_OK;
}

int32_t failing_kernel(zs_call *call) {
  snprintf(call->error, sizeof call->error, "id 7 is outside [0, 5)");
  return ZS_BAD_ARGUMENT;
}

zs_kernel kernels[ZS_OP_COUNT];

zs_backend test_backend() {
  kernels[ZS_OP_binary] = mix_kernel;
  kernels[ZS_OP_fill] = fill_kernel;
  kernels[ZS_OP_affine] = failing_kernel;
  zs_backend backend = zs::cpu::backend();
  backend.name = "test";
  backend.kernels = kernels;
  return backend;
}

constexpr int kI64 = ZS_I64;

int64_t allocate(zs::Runtime &runtime, int64_t count, bool zero = true, int category = 3) {
  double packet[] = {kI64, static_cast<double>(category), zero ? 1.0 : 0.0, 1,
                     static_cast<double>(count)};
  return runtime.alloc(packet);
}

int64_t view(zs::Runtime &runtime, int64_t handle, int64_t offset, int64_t count) {
  double packet[] = {static_cast<double>(handle), static_cast<double>(offset), kI64, 1,
                     static_cast<double>(count)};
  return runtime.view(packet);
}

void release(zs::Runtime &runtime, int64_t handle) {
  double packet[] = {static_cast<double>(handle)};
  runtime.free(packet);
}

void run(zs::Runtime &runtime, zs_op op, int stream, std::initializer_list<int64_t> handles,
         double scalar = 0) {
  double packet[40] = {static_cast<double>(op), static_cast<double>(stream)};
  int at = 2;
  for (int64_t handle : handles) packet[at++] = static_cast<double>(handle);
  packet[at] = scalar;
  runtime.run(packet);
}

std::vector<uint64_t> read(zs::Runtime &runtime, int64_t handle, int64_t count, int stream = 0) {
  std::vector<uint64_t> values(static_cast<size_t>(count));
  runtime.read_now(static_cast<double>(handle), values.data(), values.size() * 8, stream);
  return values;
}

// Tensors are pieces of a few storages; every step mixes, writes, reads, or replaces a storage.
void random_work_on_three_streams_equals_serial_work(uint32_t seed, bool serial) {
  constexpr int kStorages = 6, kPieces = 3, kPiece = 16;
  zs::Runtime runtime(test_backend());
  runtime.configure(2, serial, 0);
  std::mt19937 random(seed);
  auto below = [&random](int end) { return static_cast<int>(random() % static_cast<unsigned>(end)); };
  int64_t storages[kStorages], pieces[kStorages][kPieces];
  std::vector<uint64_t> oracle[kStorages];
  auto make = [&](int i) {
    storages[i] = allocate(runtime, kPieces * kPiece);
    for (int p = 0; p < kPieces; p++) pieces[i][p] = view(runtime, storages[i], p * kPiece, kPiece);
    oracle[i].assign(kPieces * kPiece, 0);
  };
  for (int i = 0; i < kStorages; i++) make(i);
  for (int step = 0; step < 4000; step++) {
    int kind = below(40), stream = below(3);
    int y = below(kStorages), a = below(kStorages), b = below(kStorages);
    int yp = below(kPieces), ap = below(kPieces), bp = below(kPieces);
    if (kind == 0) {
      for (int p = 0; p < kPieces; p++) release(runtime, pieces[y][p]);
      release(runtime, storages[y]);
      make(y);
    } else if (kind == 1) {
      std::vector<uint64_t> values(kPiece, random());
      runtime.write(static_cast<double>(pieces[y][yp]), values.data(), values.size() * 8, stream);
      std::copy(values.begin(), values.end(), oracle[y].begin() + yp * kPiece);
    } else if (kind == 2) {
      CHECK(read(runtime, storages[y], kPieces * kPiece, stream) == oracle[y]);
    } else {
      bool has_b = below(3) > 0;
      run(runtime, ZS_OP_binary, stream, {pieces[y][yp], pieces[a][ap], has_b ? pieces[b][bp] : 0},
          below(8) == 0 ? 3000 : 0);
      for (int i = 0; i < kPiece; i++) {
        uint64_t &target = oracle[y][static_cast<size_t>(yp * kPiece + i)];
        uint64_t other = oracle[b][static_cast<size_t>(bp * kPiece + i)];
        target = mix(target, oracle[a][static_cast<size_t>(ap * kPiece + i)], has_b ? other : 0);
      }
    }
  }
  for (int i = 0; i < kStorages; i++)
    CHECK(read(runtime, storages[i], kPieces * kPiece, i % 3) == oracle[i]);
}

void a_full_queue_makes_the_caller_wait() {
  zs::Runtime runtime(test_backend());
  int64_t y = allocate(runtime, 1), one = allocate(runtime, 1);
  run(runtime, ZS_OP_fill, 0, {one}, 1);
  run(runtime, ZS_OP_binary, 0, {y, one, 0}, 5e6);
  uint64_t expected = mix(0, 1, 0);
  for (int i = 0; i < 60000; i++) {
    run(runtime, ZS_OP_binary, 0, {y, one, 0});
    expected = mix(expected, 1, 0);
  }
  CHECK(read(runtime, y, 1)[0] == expected);
}

void a_runtime_ends_with_work_still_queued() {
  zs::Runtime runtime(test_backend());
  int64_t y = allocate(runtime, 64);
  for (int i = 0; i < 3000; i++) run(runtime, ZS_OP_binary, i % 3, {y, y, 0}, 2000);
}

void a_failure_skips_what_depends_on_it_and_is_told_once() {
  zs::Runtime runtime(test_backend());
  int64_t x = allocate(runtime, 4), y = allocate(runtime, 4), z = allocate(runtime, 4);
  int64_t apart = allocate(runtime, 4);
  run(runtime, ZS_OP_fill, 0, {x}, 1);
  run(runtime, ZS_OP_fill, 1, {y}, 2);
  runtime.synchronize_now(-1);
  run(runtime, ZS_OP_affine, 0, {x, x});   // fails
  run(runtime, ZS_OP_fill, 0, {z}, 9);     // skipped: same stream
  run(runtime, ZS_OP_binary, 1, {y, x, 0});  // skipped: depends on x
  run(runtime, ZS_OP_fill, 2, {apart}, 5);   // runs: has nothing to do with it
  CHECK(read(runtime, apart, 4, 2)[0] == 5);
  try {
    read(runtime, y, 4, 1);
    CHECK(false);
  } catch (const zs::Error &error) {
    CHECK(error.code == "ARGUMENT");
    CHECK(error.message == "[affine] id 7 is outside [0, 5)");
  }
  runtime.synchronize_now(-1);  // told once, and the streams run again
  CHECK(read(runtime, z, 4)[0] == 0);
  CHECK(read(runtime, y, 4)[0] == 2);
  run(runtime, ZS_OP_fill, 0, {x}, 3);
  run(runtime, ZS_OP_binary, 1, {y, x, 0});
  CHECK(read(runtime, y, 4, 2)[0] == mix(2, 3, 0));

  // Another failure hidden behind one that was told shows where its result is used.
  run(runtime, ZS_OP_affine, 0, {x, x});
  run(runtime, ZS_OP_affine, 1, {y, y});
  run(runtime, ZS_OP_binary, 1, {z, x, 0});
  CHECK(code_of([&] { runtime.synchronize_now(1); }) == "ARGUMENT");
  CHECK(code_of([&] { read(runtime, x, 4, 1); }) == "ARGUMENT");
  runtime.synchronize_now(-1);
}

void handles_are_never_reused() {
  zs::Runtime runtime(test_backend());
  CHECK(code_of([&] { runtime.memory().find(0); }) == "ARGUMENT");
  CHECK(code_of([&] { runtime.memory().find(NAN); }) == "ARGUMENT");
  CHECK(code_of([&] { runtime.memory().find(-1); }) == "ARGUMENT");
  CHECK(code_of([&] { runtime.memory().find(1.5 + (1 << 24)); }) == "ARGUMENT");
  CHECK(code_of([&] { runtime.memory().find(1e300); }) == "ARGUMENT");
  int64_t old = allocate(runtime, 8);
  int64_t part = view(runtime, old, 4, 4);
  release(runtime, old);
  CHECK(code_of([&] { release(runtime, old); }) == "DISPOSED");
  CHECK(read(runtime, part, 4)[3] == 0);  // the storage lives with its last handle
  for (int i = 0; i < 1000; i++) {
    int64_t handle = allocate(runtime, 8);
    CHECK(handle != old && handle > 0 && handle < (int64_t{1} << 53));
    release(runtime, handle);
    CHECK(code_of([&] { run(runtime, ZS_OP_fill, 0, {handle}); }) == "DISPOSED");
  }
  CHECK(code_of([&] { view(runtime, part, 1, 4); }) == "SHAPE");
  CHECK(code_of([&] { run(runtime, ZS_OP_fill, 0, {0}); }) == "ARGUMENT");
  CHECK(code_of([&] { run(runtime, ZS_OP_matmul, 0, {part}); }) == "UNSUPPORTED");
  int64_t empty = allocate(runtime, 0);
  run(runtime, ZS_OP_fill, 0, {empty});
  read(runtime, empty, 0);
}

void memory_is_counted_exactly_and_limited() {
  zs::Runtime runtime(test_backend());
  auto live = [&](int category) { return runtime.memory().stats().live[category]; };
  int64_t a = allocate(runtime, 1001, true, 0);
  int64_t b = allocate(runtime, 3, true, 1);
  int64_t c = view(runtime, a, 0, 10);
  CHECK(live(0) == 8008 && live(1) == 24 && runtime.memory().stats().tensors == 3);
  release(runtime, a);
  CHECK(live(0) == 8008);
  release(runtime, c);
  CHECK(live(0) == 0 && runtime.memory().stats().peak[0] == 8008);
  runtime.memory().reset_peak();
  CHECK(runtime.memory().stats().peak[0] == 0);
  runtime.memory().set_limit(1000);
  CHECK(code_of([&] { allocate(runtime, 123); }) == "OUT_OF_MEMORY");
  runtime.memory().set_limit(0);
  CHECK(code_of([&] { allocate(runtime, int64_t{1} << 49); }) == "OUT_OF_MEMORY");
  release(runtime, b);
  CHECK(runtime.memory().stats().tensors == 0 && live(1) == 0 && live(3) == 0);
}

void blocks_never_overlap_and_waste_little() {
  for (size_t bytes = 513; bytes < (3u << 20); bytes += 1 + bytes / 97)
    CHECK(zs::Allocator::rounded(bytes) >= bytes && zs::Allocator::rounded(bytes) <= bytes + bytes / 8);
  zs::Progress progress;
  size_t reserved = 0;
  {
    const zs_backend &cpu = zs::cpu::backend();
    zs::Allocator::Source source{[&](size_t bytes) { return reserved += bytes, cpu.allocate(bytes); },
                                 [&](void *data, size_t bytes) {
                                   reserved -= bytes;
                                   cpu.release(data, bytes);
                                 }};
    zs::Allocator allocator(source, &progress);
    std::mt19937 random(5);
    struct Held {
      zs::Block *block;
      size_t bytes;
      unsigned char mark;
    };
    std::vector<Held> held;
    size_t live = 0, peak = 0;
    auto check = [](const Held &h) {
      unsigned char *data = reinterpret_cast<unsigned char *>(h.block->data);
      CHECK(reinterpret_cast<uintptr_t>(data) % 64 == 0 && h.block->bytes >= h.bytes);
      CHECK(data[0] == h.mark && data[h.bytes / 2] == h.mark && data[h.bytes - 1] == h.mark);
    };
    for (int step = 0; step < 20000; step++) {
      if (held.size() < 60 && random() % 2) {
        size_t bytes = size_t{1} + random() % (size_t{1} << (1 + random() % 22));
        Held h{allocator.allocate(bytes), bytes, static_cast<unsigned char>(random())};
        unsigned char *data = reinterpret_cast<unsigned char *>(h.block->data);
        data[0] = data[bytes / 2] = data[bytes - 1] = h.mark;
        held.push_back(h);
        live += bytes;
        peak = std::max(peak, live);
      } else if (!held.empty()) {
        size_t i = random() % held.size();
        check(held[i]);
        live -= held[i].bytes;
        allocator.free(held[i].block);
        held[i] = held.back();
        held.pop_back();
      }
    }
    CHECK(allocator.reserved() == reserved && reserved < 2 * peak + (size_t{64} << 20));
    for (Held &h : held) {
      check(h);
      allocator.free(h.block);
    }
    zs::Block *huge = allocator.allocate(size_t{64} << 20);
    allocator.free(huge);
    size_t before = reserved;
    allocator.free(allocator.allocate(size_t{1} << 20));
    CHECK(reserved == before);  // a small request is cut from what is cached
    allocator.trim();
    for (size_t mib = 16; mib < 40; mib++) {  // just above a whole number of huge pages
      before = reserved;
      const size_t bytes = (mib << 20) + 4096;
      zs::Block *block = allocator.allocate(bytes);
      CHECK(reserved - before <= bytes + bytes / 16);
      allocator.free(block);
      allocator.trim();
    }
    CHECK(allocator.num_live() == 0 && reserved <= (size_t{16} << 20) * 2);
  }
  CHECK(reserved == 0);
}

void a_freed_block_inherits_its_hazards() {
  zs::Runtime runtime(test_backend());
  for (int i = 0; i < 300; i++) {
    int64_t slow = allocate(runtime, 512, false);
    run(runtime, ZS_OP_fill, 1, {slow}, 1);
    run(runtime, ZS_OP_binary, 1, {slow, slow, 0}, 20000);
    release(runtime, slow);  // still in use by stream 1
    int64_t next = allocate(runtime, 512, false);
    run(runtime, ZS_OP_fill, 2, {next}, 77);
    for (uint64_t value : read(runtime, next, 512, 0)) CHECK(value == 77);
    release(runtime, next);
  }
}

void a_world_of_one_copies() {
  zs::Runtime runtime(test_backend());
  int64_t x = allocate(runtime, 4), y = allocate(runtime, 4);
  run(runtime, ZS_OP_fill, 0, {x}, 6);
  auto collective = [&](zs::Collective kind, double detail) {
    double packet[] = {static_cast<double>(kind), 0, 1, static_cast<double>(y),
                       static_cast<double>(x), detail, 0, 0};
    runtime.collective(packet);
  };
  collective(zs::Collective::all_gather, 4);
  CHECK(read(runtime, y, 4, 1)[3] == 6);
  CHECK(code_of([&] { collective(zs::Collective::reduce_scatter, 3); }) == "SHAPE");
  CHECK(code_of([&] { collective(zs::Collective::send, 0); }) == "ARGUMENT");
  CHECK(code_of([&] { collective(zs::Collective::broadcast, 1); }) == "ARGUMENT");
  runtime.communicator().abort({"RANK_LOST", "rank 3 died"});
  collective(zs::Collective::all_reduce, 0);
  CHECK(code_of([&] { runtime.synchronize_now(1); }) == "RANK_LOST");
  collective(zs::Collective::all_reduce, 0);  // stays aborted
  CHECK(code_of([&] { runtime.synchronize_now(1); }) == "RANK_LOST");
  runtime.synchronize_now(-1);
}

void the_pool_serves_several_callers() {
  zs::ThreadPool pool(3);
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; c++)
    callers.emplace_back([&pool] {
      for (int count = 1; count < 400; count++) {
        std::vector<int> hits(static_cast<size_t>(count), 0);
        auto inner = [](int64_t, int64_t) {};
        auto body = [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) hits[static_cast<size_t>(i)]++;
          pool.parallel_for(8, 1, inner);  // from within a piece
        };
        pool.parallel_for(count, 7, body);
        for (int hit : hits) CHECK(hit == 1);
      }
    });
  for (std::thread &caller : callers) caller.join();
}

}  // namespace

int main() {
  the_pool_serves_several_callers();
  blocks_never_overlap_and_waste_little();
  handles_are_never_reused();
  memory_is_counted_exactly_and_limited();
  for (uint32_t seed = 1; seed <= 5; seed++) {
    random_work_on_three_streams_equals_serial_work(seed, false);
    random_work_on_three_streams_equals_serial_work(seed, true);
  }
  a_freed_block_inherits_its_hazards();
  a_full_queue_makes_the_caller_wait();
  a_failure_skips_what_depends_on_it_and_is_told_once();
  a_runtime_ends_with_work_still_queued();
  a_world_of_one_copies();
  puts("core_test: ok");
  return 0;
}
