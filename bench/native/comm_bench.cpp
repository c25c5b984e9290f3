// Collectives between processes of one host over shared memory: median time, algorithm and bus bandwidth
// (busbw as nccl-tests define it). Usage: comm_bench [ranks = 2]
// Build: g++ -std=c++20 -O3 bench/native/comm_bench.cpp native/comm/shm/*.cpp -o comm_bench
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../native/comm/group.h"

namespace {

using zs::Collective;
using zs::CollectiveCall;

double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

// Facts travel through memory that all processes share.
struct Board {
  int ready[64];
  char facts[64][512];
};

struct Case {
  const char *name;
  Collective kind;
  bool arena;
  double bus;  // busbw / algbw
};

void measure(zs::ProcessGroup &group, int rank, int ranks, const Case &what, size_t bytes) {
  const auto element = sizeof(float);
  const size_t whole = std::max(bytes, element * static_cast<size_t>(ranks));
  void *input = what.arena ? group.arena_allocate(whole) : std::malloc(whole);
  void *output = what.arena ? group.arena_allocate(whole) : std::malloc(whole);
  std::memset(input, 0, whole);
  std::memset(output, 0, whole);
  CollectiveCall call{what.kind, 0, output, input, static_cast<int64_t>(bytes / element), ZS_F32, 0, 0, false};
  if (what.kind == Collective::all_reduce) call.output = input;
  if (what.kind == Collective::reduce_scatter || what.kind == Collective::all_gather) {
    call.count = std::max<int64_t>(1, call.count / ranks);
  }
  CollectiveCall barrier{};
  barrier.kind = Collective::barrier;
  // Calls follow each other in a batch: a single short one would time how late the peer came.
  const int rounds = bytes >= size_t{1} << 24 ? 15 : 50, batch = bytes >= 65536 ? 2 : 200;
  std::vector<double> times;
  for (int i = -rounds / 5; i < rounds; ++i) {
    group.run(barrier);
    const double start = now();
    for (int b = 0; b < batch; ++b) group.run(call);
    if (i >= 0) times.push_back((now() - start) / batch);
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2], speed = static_cast<double>(bytes) / median * 1e-9;
  if (rank == 0) {
    std::printf("%-14s %-8s %10zu B %12.1f µs %8.2f GB/s algbw %8.2f GB/s busbw\n", what.name,
                what.arena ? "arena" : "staged", bytes, median * 1e6, speed, speed * what.bus);
    std::fflush(stdout);
  }
  if (what.arena) {
    group.arena_release(input, whole);
    group.arena_release(output, whole);
  } else {
    std::free(input);
    std::free(output);
  }
}

void run_rank(Board &board, int rank, int ranks) {
  auto group = zs::make_shm_group(rank, ranks, "comm-bench", 30);
  std::snprintf(board.facts[rank], sizeof board.facts[rank], "%s", group->facts().c_str());
  __atomic_store_n(&board.ready[rank], 1, __ATOMIC_RELEASE);
  std::vector<std::string> facts;
  for (int r = 0; r < ranks; ++r) {
    while (!__atomic_load_n(&board.ready[r], __ATOMIC_ACQUIRE)) usleep(100);
    facts.emplace_back(board.facts[r]);
  }
  group->connect(facts);
  const double n = ranks, half = (n - 1) / n;
  const Case cases[] = {{"all_reduce", Collective::all_reduce, true, 2 * half},
                        {"all_reduce", Collective::all_reduce, false, 2 * half},
                        {"reduce_scatter", Collective::reduce_scatter, true, half},
                        {"all_gather", Collective::all_gather, true, half},
                        {"broadcast", Collective::broadcast, true, 1}};
  for (const Case &what : cases) {
    for (size_t bytes : {size_t{4}, size_t{4} << 20, size_t{64} << 20}) measure(*group, rank, ranks, what, bytes);
  }
}

}  // namespace

int main(int argc, char **argv) {
  const int ranks = argc > 1 ? std::atoi(argv[1]) : 2;
  void *shared = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED || ranks < 1 || ranks > 64) return 1;
  for (int r = 0; r < ranks; ++r) {
    if (fork() != 0) continue;
    try {
      run_rank(*static_cast<Board *>(shared), r, ranks);
    } catch (const zs::CommError &error) {
      std::fprintf(stderr, "%s: %s\n", error.code.c_str(), error.message.c_str());
      _exit(1);
    }
    _exit(0);
  }
  int failed = 0, status = 0;
  while (wait(&status) > 0) failed |= status;
  return failed != 0;
}
