// Who still uses a piece of memory: the last read and the last write of each stream, as sequence
// numbers of that stream (0: none). A stream needs no wait for itself, its tasks run in order.
// Only the thread that queues work touches these; streams see the waits that follow from them.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

namespace zs {

inline constexpr int kNumStreams = 5;
inline constexpr int kCopyStream = 2;
inline constexpr int kDiskStream = 3;  // 4, messages: receives, which wait for their senders
inline constexpr const char *kStreamNames[kNumStreams] = {"compute", "communication", "copy", "disk",
                                                              "messages"};

// For each stream: the task that must be done first (0: none).
struct Waits {
  uint64_t sequence[kNumStreams] = {};
  void add(int stream, uint64_t wanted) {
    sequence[stream] = std::max(sequence[stream], wanted);
  }
};

struct Hazards {
  uint64_t written[kNumStreams] = {};
  uint64_t read[kNumStreams] = {};

  void before_read(Waits &waits) const {
    for (int s = 0; s < kNumStreams; s++) waits.add(s, written[s]);
  }
  void before_write(Waits &waits) const {
    for (int s = 0; s < kNumStreams; s++) waits.add(s, std::max(written[s], read[s]));
  }
  void did_read(int stream, uint64_t sequence) {
    read[stream] = std::max(read[stream], sequence);
  }
  // What came before is implied: the write has waited for it.
  void did_write(int stream, uint64_t sequence) {
    *this = Hazards{};
    written[stream] = sequence;
  }
  void merge(const Hazards &other) {
    for (int s = 0; s < kNumStreams; s++) {
      written[s] = std::max(written[s], other.written[s]);
      read[s] = std::max(read[s], other.read[s]);
    }
  }
};

// How far each stream has got; written by the streams, read by all. On a device `completed` means launched, and
// `finished` is the newest task that is known to be done there.
struct Progress {
  std::atomic<uint64_t> completed[kNumStreams] = {};
  std::atomic<uint64_t> finished[kNumStreams] = {};
  bool on_device = false;
  bool reached(int stream, uint64_t sequence) const {
    return completed[stream].load(std::memory_order_acquire) >= sequence;
  }
  // Whether any stream (other than `but`) still uses the memory.
  bool busy(const Hazards &hazards, int but = -1) const {
    const std::atomic<uint64_t> *done = on_device ? finished : completed;
    for (int s = 0; s < kNumStreams; s++)
      if (s != but && done[s].load(std::memory_order_acquire) < std::max(hazards.written[s], hazards.read[s]))
        return true;
    return false;
  }
};

}  // namespace zs
