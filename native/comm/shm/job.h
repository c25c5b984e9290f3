// What all groups of a rank share: its arena, the mapped peers, who is alive, the job's first error,
// and the one way to wait: spin for a while, sleep on a futex, and look after the peers meanwhile.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../group.h"
#include "arena.h"
#include "layout.h"

namespace zs::shm {

// What a waiting call can say of itself when it goes wrong.
class Pending {
 public:
  virtual ~Pending() = default;
  virtual std::string op() const = 0;                // "allReduce"
  virtual std::string what() const = 0;              // "allReduce f32 ×64 (sequence 5, ranks 0-2)"
  virtual std::vector<int> missing() const = 0;      // ranks of the world that are waited for
  virtual const char *timeout_code() const { return "COLLECTIVE_TIMEOUT"; }
};

class Job {
 public:
  Job(int rank, int world_size, const std::string &id, double timeout_seconds);
  ~Job();
  Job(const Job &) = delete;
  Job &operator=(const Job &) = delete;

  int rank() const { return rank_; }
  int world_size() const { return world_size_; }
  Arena &arena() { return *arena_; }
  char *base(int rank) const { return peers_[static_cast<size_t>(rank)].mapping.base; }
  Control &control(int rank) const { return *reinterpret_cast<Control *>(base(rank)); }

  std::string facts() const;
  void connect(const std::vector<std::string> &facts);
  bool connected() const { return connected_.load(std::memory_order_acquire); }

  // Throws the job's error, if there is one.
  void check();
  void check_alive();  // throws, too, where a rank's process has ended
  // Makes this the job's error unless there is one already; then throws the one that counts.
  [[noreturn]] void fail(const std::string &code, const std::string &message);
  void record(const std::string &code, const std::string &message);

  // Returns when the signal has reached `target` (modulo 2^32).
  void wait(Signal &signal, uint32_t target, const Pending &pending);
  // Looks after the peers while waiting since `started` (seconds of now()): throws, or returns.
  template <class Reached>
  void watch(const Reached &reached, const Pending &pending, double started);
  static double now();
  static void post(Signal &signal, uint32_t value);

 private:
  struct Peer {
    Mapping mapping;
    int pid = 0;
    uint64_t started = 0;  // ticks since boot: tells a reused pid
    int pidfd = -1;
  };
  void map_peer_of(int rank, const std::string &facts);
  bool alive(int rank) const;
  bool spin(const Signal &signal, uint32_t target);
  [[noreturn]] void lost(int rank, const Pending &pending);
  [[noreturn]] void timed_out(const Pending &pending, double seconds);
  [[noreturn]] void throw_error();

  const int rank_, world_size_;
  const std::string id_;
  const double timeout_;
  uint64_t nonce_ = 0;
  std::unique_ptr<Arena> arena_;
  std::vector<Peer> peers_;
  std::atomic<bool> connected_{false};
  std::atomic<int> spin_microseconds_;
  int most_spin_;
  std::mutex early_mutex_;
  std::atomic<bool> early_{false};  // an error before the peers were mapped
  CommError early_error_;
};

template <class Reached>
void Job::watch(const Reached &reached, const Pending &pending, double started) {
  check();
  for (int rank : pending.missing()) {
    if (alive(rank)) continue;
    // It may have come before it died.
    if (reached()) return;
    for (int still : pending.missing()) {
      if (still == rank) lost(rank, pending);
    }
  }
  const double seconds = now() - started;
  if (seconds > timeout_ && !reached()) timed_out(pending, seconds);
}

int most_spin(int world_size);  // µs: 0 where ranks outnumber the cores
std::string rank_list(const std::vector<int> &ranks);  // "0-2, 5"

}  // namespace zs::shm
