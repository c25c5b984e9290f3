// See job.h: waiting, liveness and the job's error. Connecting is in connect.cpp.
#include "job.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstring>
#include <thread>

#include "process.h"

namespace zs::shm {
namespace {

constexpr long kLookAfter = 20'000'000;  // ns of sleep between two looks at the peers
constexpr int kMostSpin = 50, kLeastSpin = 2;  // µs

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

long futex(std::atomic<uint32_t> &word, int op, uint32_t value, const timespec *time) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t *>(&word), op, value, time, nullptr, 0);
}

bool reached(const Signal &signal, uint32_t target) {
  return static_cast<int32_t>(signal.value.load(std::memory_order_acquire) - target) >= 0;
}

int num_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  return CPU_COUNT(&set);
}

}  // namespace

int most_spin(int world_size) { return world_size <= num_cores() ? kMostSpin : 0; }

double Job::now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

void Job::post(Signal &signal, uint32_t value) {
  signal.value.store(value, std::memory_order_seq_cst);
  if (signal.sleepers.load(std::memory_order_seq_cst) != 0) futex(signal.value, FUTEX_WAKE, INT_MAX, nullptr);
}

// Spinning pays while it succeeds: the time halves with each failure, and comes back with a success.
bool Job::spin(const Signal &signal, uint32_t target) {
  if (most_spin_ == 0) {  // more ranks than cores: let others run instead
    for (int i = 0; i < 3; ++i) {
      sched_yield();
      if (reached(signal, target)) return true;
    }
    return false;
  }
  const int limit = spin_microseconds_.load(std::memory_order_relaxed);
  const double end = now() + limit * 1e-6;
  do {
    for (int i = 0; i < 32; ++i) {
      if (reached(signal, target)) {
        if (limit < most_spin_) spin_microseconds_.store(std::min(limit * 2, most_spin_), std::memory_order_relaxed);
        return true;
      }
      relax();
    }
  } while (now() < end);
  spin_microseconds_.store(std::max(limit / 2, kLeastSpin), std::memory_order_relaxed);
  return reached(signal, target);
}

void Job::wait(Signal &signal, uint32_t target, const Pending &pending) {
  if (reached(signal, target) || spin(signal, target)) return;
  const double started = now();
  double looked = started;
  const timespec interval = {0, kLookAfter};
  for (;;) {
    const uint32_t seen = signal.value.load(std::memory_order_acquire);
    if (reached(signal, target)) return;
    signal.sleepers.fetch_add(1, std::memory_order_seq_cst);
    futex(signal.value, FUTEX_WAIT, seen, &interval);
    signal.sleepers.fetch_sub(1, std::memory_order_relaxed);
    if (reached(signal, target)) return;
    if (now() - looked < kLookAfter * 0.5e-9) continue;
    watch([&] { return reached(signal, target); }, pending, started);
    looked = now();
  }
}

bool Job::alive(int rank) const {
  if (rank == rank_) return true;
  const Peer &peer = peers_[static_cast<size_t>(rank)];
  if (control(rank).left.load(std::memory_order_acquire) != 0) return false;
  if (peer.pidfd >= 0) {  // readable from the moment it terminated, reaped or not
    pollfd look = {peer.pidfd, POLLIN, 0};
    return poll(&look, 1, 0) <= 0;
  }
  return process_alive(peer.pid, peer.started);
}

void Job::lost(int rank, const Pending &pending) {
  const Peer &peer = peers_[static_cast<size_t>(rank)];
  const bool left = control(rank).left.load(std::memory_order_acquire) != 0;
  fail("RANK_LOST", "[" + pending.op() + "] rank " + std::to_string(rank) + " (pid " +
                        std::to_string(peer.pid) + ") " + (left ? "left the job before" : "died during") +
                        " " + pending.what());
}

void Job::timed_out(const Pending &pending, double seconds) {
  const std::vector<int> missing = pending.missing();
  char time[32];
  std::snprintf(time, sizeof time, "%.3g", seconds);
  std::string who;
  if (missing.empty()) who = "all came, but did not finish";
  else who = (missing.size() == 1 ? "rank " : "ranks ") + rank_list(missing) + " did not come";
  fail(pending.timeout_code(), "[" + pending.op() + "] timed out after " + time + " s: " + who + " to " + pending.what());
}

void Job::check() {
  if (connected()) {
    if (control(0).error.state.load(std::memory_order_acquire) != 0) throw_error();
  } else if (early_.load(std::memory_order_acquire)) {
    throw_error();
  }
}

void Job::check_alive() {
  check();
  for (int r = 0; r < world_size_ && connected(); r++)
    if (r != rank_ && !alive(r))
      fail("RANK_LOST", "rank " + std::to_string(rank_) + ": rank " + std::to_string(r) +
                            " has ended while a collective between devices was under way");
}

void Job::fail(const std::string &code, const std::string &message) {
  record(code, message);
  throw_error();
}

void Job::record(const std::string &code, const std::string &message) {
  {
    const std::lock_guard<std::mutex> lock(early_mutex_);
    if (!early_.load(std::memory_order_relaxed)) {
      early_error_ = {code, message};
      early_.store(true, std::memory_order_release);
    }
  }
  if (!connected()) return;
  ErrorRecord &error = control(0).error;
  uint32_t none = 0;
  if (!error.state.compare_exchange_strong(none, 1, std::memory_order_acq_rel)) return;
  std::snprintf(error.code, sizeof error.code, "%s", code.c_str());
  std::snprintf(error.message, sizeof error.message, "%s", message.c_str());
  error.state.store(2, std::memory_order_release);
}

void Job::throw_error() {
  if (connected()) {
    const ErrorRecord &error = control(0).error;
    for (int i = 0; i < 100; ++i) {  // its writer may have died over it: then this rank's own will do
      const uint32_t state = error.state.load(std::memory_order_acquire);
      if (state == 2) throw CommError{error.code, error.message};
      if (state == 0) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  const std::lock_guard<std::mutex> lock(early_mutex_);
  if (early_.load(std::memory_order_relaxed)) throw CommError(early_error_);
  throw CommError{"RANK_LOST", "[commAbort] a rank died while it reported an error"};
}

std::string rank_list(const std::vector<int> &ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += std::to_string(ranks[i]);
    if (end - i > 2) text.append("-").append(std::to_string(ranks[end - 1]));
    else end = i + 1;
    i = end;
  }
  return text;
}

}  // namespace zs::shm
