// The trace while streams run: the ring under several writers, a start and an end in the middle of work.
// Made for sanitizers.
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "../../native/backend/cpu/backend.h"
#include "../../native/core/runtime.h"
#include "check.h"

namespace {

void the_ring_keeps_the_newest() {
  zs::Trace trace;
  uint64_t dropped = 9;
  CHECK(!trace.on());
  trace.add({"lost", 0, 1, 2, 2, 3, {}});
  CHECK(trace.take(&dropped).empty() && dropped == 0);
  trace.start(3);
  for (uint64_t i = 0; i < 8; i++) trace.add({"task", 0, i, i, i, i, {}});
  auto taken = trace.take(&dropped);
  CHECK(taken.size() == 3 && dropped == 5);
  for (uint64_t i = 0; i < 3; i++) CHECK(taken[i].queued == 5 + i);
  trace.add({"task", 0, 8, 8, 8, 8, {}});
  taken = trace.take(&dropped);
  CHECK(taken.size() == 1 && taken[0].queued == 8 && dropped == 0);
  trace.add({"task", 0, 9, 9, 9, 9, {}});
  trace.start(3);
  CHECK(trace.take(&dropped).empty());
  trace.start(0);
  CHECK(!trace.on());
}

void several_writers_lose_nothing() {
  zs::Trace trace;
  constexpr size_t kEach = 5000;
  trace.start(3 * kEach);
  std::vector<std::thread> writers;
  for (int stream = 0; stream < 3; stream++)
    writers.emplace_back([&trace, stream] {
      for (size_t i = 0; i < kEach; i++) trace.add({"task", stream, i, i, i, i, {}});
    });
  size_t seen[3] = {};
  uint64_t lost = 0;
  auto look = [&] {
    uint64_t dropped;
    for (const zs::TraceRecord &record : trace.take(&dropped)) CHECK(record.queued == seen[record.stream]++);
    lost += dropped;
  };
  for (int i = 0; i < 50; i++) look();
  for (std::thread &writer : writers) writer.join();
  look();
  for (size_t count : seen) CHECK(count == kEach);
  CHECK(lost == 0);
}

void it_starts_and_ends_while_streams_run() {
  zs::Runtime runtime(zs::cpu::backend());
  runtime.configure(2, false, 0);
  double allocation[] = {ZS_F32, 3, 0, 1, 100};
  double x[3];
  for (double &handle : x) handle = static_cast<double>(runtime.alloc(allocation));
  size_t records = 0;
  uint64_t dropped;
  for (int round = 0; round < 200; round++) {
    if (round % 4 == 0) runtime.trace().start(64);
    for (int stream = 0; stream < 3; stream++) {
      double packet[] = {ZS_OP_fill, static_cast<double>(stream), x[stream], 1};
      for (int i = 0; i < 5; i++) runtime.run(packet);
    }
    for (const zs::TraceRecord &record : runtime.trace().take(&dropped)) {
      CHECK(record.queued <= record.start && record.start <= record.end);
      records++;
    }
    if (round % 4 == 3) runtime.trace().start(0);
  }
  runtime.synchronize_now(-1);
  // What ran while the trace was on depends on the machine; here it is sure.
  runtime.trace().start(64);
  double packet[] = {ZS_OP_fill, 0, x[0], 1};
  runtime.run(packet);
  runtime.synchronize_now(-1);
  CHECK(records + runtime.trace().take(&dropped).size() > 0);
}

}  // namespace

int main() {
  the_ring_keeps_the_newest();
  several_writers_lose_nothing();
  it_starts_and_ends_while_streams_run();
  puts("trace_test: ok");
  return 0;
}
