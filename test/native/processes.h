// For tests of process groups: ranks as forked processes, on a board of memory that all of them share.
// The parent waits for them, with a limit, and tells how each ended.
#pragma once
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "../../native/comm/group.h"
#include "check.h"

namespace zs::test {

inline constexpr int kRanks = 8;
inline constexpr int kThrew = 42;  // exit status of a rank whose body threw a CommError

inline double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

inline void rest(double seconds) { usleep(static_cast<useconds_t>(seconds * 1e6)); }

// Zero at birth; every process sees it at the same address.
struct Board {
  std::atomic<int> has_facts[kRanks];
  std::atomic<int> mark[kRanks];  // how far a rank came, as it says
  std::atomic<double> time;       // for whoever writes it first
  char facts[kRanks][512];
  char code[kRanks][64];  // of the CommError that a rank ended with
  char message[kRanks][1024];
};

struct Rank {
  int rank, ranks;
  Board &board;
  std::unique_ptr<ProcessGroup> group;

  void create(double timeout, const std::string &job = "") {
    group = make_shm_group(rank, ranks, job.empty() ? "test-" + std::to_string(getppid()) : job, timeout);
    snprintf(board.facts[rank], sizeof board.facts[rank], "%s", group->facts().c_str());
    board.has_facts[rank].store(1);
  }
  std::vector<std::string> all_facts() {
    std::vector<std::string> facts;
    for (int r = 0; r < ranks; r++) {
      while (!board.has_facts[r].load()) rest(0.0005);
      facts.emplace_back(board.facts[r]);
    }
    return facts;
  }
  void connect(double timeout) {
    create(timeout);
    group->connect(all_facts());
  }
  void mark(int value) { board.mark[rank].store(value); }
  void wait_for_mark(int other, int value) {
    while (board.mark[other].load() < value) rest(0.0005);
  }
};

// Forked ranks. Each runs `body`, and exits with 0, with kThrew and its error on the board, or as a CHECK does.
class Processes {
 public:
  Processes(int num_ranks, const std::function<void(Rank &)> &body) : pids_(static_cast<size_t>(num_ranks)) {
    void *shared = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    board_ = new (shared) Board{};
    fflush(nullptr);
    for (int r = 0; r < num_ranks; r++) {
      const pid_t pid = fork();
      CHECK(pid >= 0);
      if (pid == 0) exit(run(r, num_ranks, body));
      pids_[static_cast<size_t>(r)] = pid;
    }
  }
  ~Processes() { munmap(board_, sizeof(Board)); }
  Processes(const Processes &) = delete;
  Processes &operator=(const Processes &) = delete;

  Board &board() { return *board_; }
  std::string code(int rank) const { return board_->code[rank]; }
  std::string message(int rank) const { return board_->message[rank]; }
  void signal(int rank, int number) { kill(pids_[static_cast<size_t>(rank)], number); }
  void wait_for_mark(int rank, int value) {
    const double end = now() + 60;
    while (board_->mark[rank].load() < value) {
      if (now() > end) give_up("no rank came so far");
      rest(0.0005);
    }
  }

  // Exit statuses by rank, negative: the signal that killed it.
  std::vector<int> wait(double limit = 120) {
    std::vector<int> statuses(pids_.size());
    const double end = now() + limit;
    for (size_t r = 0; r < pids_.size(); r++) {
      int status = 0;
      for (pid_t done = 0; done == 0; rest(0.001)) {
        done = waitpid(pids_[r], &status, WNOHANG);
        if (done == 0 && now() > end) give_up("a rank does not end");
      }
      statuses[r] = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    return statuses;
  }

 private:
  int run(int rank, int ranks, const std::function<void(Rank &)> &body) {
    try {
      Rank self{rank, ranks, *board_, nullptr};
      body(self);
      return 0;
    } catch (const CommError &error) {
      snprintf(board_->code[rank], sizeof board_->code[rank], "%s", error.code.c_str());
      snprintf(board_->message[rank], sizeof board_->message[rank], "%s", error.message.c_str());
      return kThrew;
    }
  }
  [[noreturn]] void give_up(const char *why) {
    for (pid_t pid : pids_) kill(pid, SIGKILL);
    fprintf(stderr, "%s\n", why);
    exit(1);
  }

  std::vector<pid_t> pids_;
  Board *board_;
};

// Ranks that all succeed.
inline void run_ranks(int num_ranks, const std::function<void(Rank &)> &body) {
  Processes processes(num_ranks, body);
  const std::vector<int> statuses = processes.wait();
  for (int r = 0; r < num_ranks; r++) {
    const int status = statuses[static_cast<size_t>(r)];
    if (status == 0) continue;
    fprintf(stderr, "rank %d of %d ended with %d: %s\n", r, num_ranks, status, processes.message(r).c_str());
    exit(1);
  }
}

}  // namespace zs::test
