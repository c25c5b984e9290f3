// What lies in shared memory: each rank's control block at the start of its arena, and one slot per
// process group in the arena of each member. Everything here is plain data and lock-free atomics,
// zero-filled at birth, addressed by offsets: every process maps it elsewhere.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace zs::shm {

constexpr uint64_t kMagic = 0x7a65726f73687264;  // "zeroshrd"
constexpr uint32_t kVersion = 1;
constexpr int kMaxRanks = 64;
constexpr int kMaxGroups = 1024;
constexpr size_t kPage = 4096;
constexpr size_t kLine = 64;
constexpr size_t kSmall = 4096;  // up to so many bytes per rank travel inside the slot itself
constexpr int kMessages = 16;    // messages of one sender that may wait for one receiver

static_assert(std::atomic<uint32_t>::is_always_lock_free);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// A counter that others wait for; `sleepers` lets the poster skip the system call.
struct alignas(kLine) Signal {
  std::atomic<uint32_t> value;
  std::atomic<uint32_t> sleepers;
};

// The job's first error; rank 0's copy is the one in use.
struct ErrorRecord {
  std::atomic<uint32_t> state;  // 0 none, 1 being written, 2 there
  char code[60];
  char message[4032];
};

struct GroupEntry {
  std::atomic<uint64_t> identity;  // of members and ordinal; stored last, 0 while unused
  uint64_t slot;                   // offset in the arena
};

struct Control {
  uint64_t magic;
  uint32_t version;
  uint32_t rank;
  uint32_t world_size;
  uint32_t unused;
  uint64_t job;  // hash of its id
  uint64_t nonce;
  std::atomic<uint32_t> left;  // 1: closed in an orderly way
  ErrorRecord error;
  GroupEntry groups[kMaxGroups];
};

// One call, as its caller understands it: the fingerprint, and where the buffers are.
struct Header {
  uint64_t sequence;
  int64_t count;
  int64_t tag;  // what the caller means by it: two calls of the same shape are not the same call
  int32_t kind;
  int32_t dtype;
  int32_t root;
  int32_t average;
  int64_t input;   // offset in the caller's arena, -1: staged
  int64_t output;
};

struct alignas(kLine) Entry {
  Header header;
  alignas(kLine) char data[kSmall];
};

struct Message {
  int64_t tag;
  int64_t count;
  uint64_t offset;  // in the sender's arena
  int32_t dtype;
  int32_t unused;
};

// From one sender (in whose slot it lies) to one receiver.
struct Channel {
  Signal posted;  // messages sent so far
  Signal taken;   // messages received so far
  alignas(kLine) Message messages[kMessages];
};

// A step is one arrival of all members; calls take one or more. Entries alternate with the step's
// parity: nobody reaches step s + 2 before all have arrived at s + 1, so have read entry s.
struct Slot {
  alignas(kLine) std::atomic<uint64_t> arrivals;  // of all members; the first member's slot is used
  Signal epoch;                                   // last complete step, likewise
  alignas(kLine) std::atomic<uint64_t> step;      // last step that this rank arrived at
  std::atomic<uint64_t> sequence;                 // last call that this rank entered
  uint64_t staging;                               // offset of the staging area
  uint64_t staging_bytes;
  Entry entries[2];
  Channel channels[1];  // one per member

  static size_t bytes(int members) {
    return sizeof(Slot) + sizeof(Channel) * static_cast<size_t>(members - 1);
  }
};

}  // namespace zs::shm
