// The pool keeps a list of the calls under way. Each call lies on its caller's stack; helpers join
// any call that still has pieces. A caller never depends on a helper: alone, it does all pieces
// itself, so no number of streams, nor a call from within a piece, can block for good.
#include "threadpool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "spin.h"

namespace zs {

namespace {

constexpr int kPiecesPerThread = 4;  // uneven pieces and late helpers even out
constexpr int kHelperSpinMicroseconds = 30;
constexpr int kCallerSpinMicroseconds = 50;

}  // namespace

struct ThreadPool::State {
  struct Call {
    int64_t count;
    int64_t step;
    Piece piece;
    void *context;
    std::atomic<int64_t> next{0};
    std::atomic<int> helpers{0};  // changed with the lock held
    bool waiting = false;         // guarded by the lock: the caller sleeps until helpers is 0
    bool open() const { return next.load(std::memory_order_relaxed) < count; }
    void work() {
      for (;;) {
        int64_t begin = next.fetch_add(step, std::memory_order_relaxed);
        if (begin >= count) return;
        piece(context, begin, std::min(begin + step, count));
      }
    }
  };

  int num_threads = 1;
  std::mutex lock;
  std::condition_variable wake;          // helpers sleep on it
  std::condition_variable done;          // callers sleep on it
  std::vector<Call *> calls;             // guarded by the lock
  std::atomic<uint64_t> num_started{0};  // calls ever, for helpers that spin
  std::atomic<bool> stop{false};
  int sleepers = 0;  // guarded by the lock
  std::vector<std::thread> helpers;

  Call *join() {
    for (Call *call : calls)
      if (call->open()) {
        call->helpers.fetch_add(1, std::memory_order_relaxed);
        return call;
      }
    return nullptr;
  }

  // The last touch of a call is the decrement: its caller may return at once after it.
  void leave(Call *call) {
    bool waiting = call->waiting;
    if (call->helpers.fetch_sub(1, std::memory_order_release) == 1 && waiting) done.notify_all();
  }

  void help() {
    std::unique_lock guard(lock);
    while (!stop.load(std::memory_order_relaxed)) {
      if (Call *call = join()) {
        guard.unlock();
        call->work();
        guard.lock();
        leave(call);
        continue;
      }
      // What is listed now has no pieces left; a new call is what to spin for.
      uint64_t seen = num_started.load(std::memory_order_relaxed);
      guard.unlock();
      auto news = [this, seen] {
        return num_started.load(std::memory_order_relaxed) != seen ||
               stop.load(std::memory_order_relaxed);
      };
      spin_until(news, kHelperSpinMicroseconds);
      guard.lock();
      bool found = std::any_of(calls.begin(), calls.end(), [](Call *call) { return call->open(); });
      if (found || stop.load(std::memory_order_relaxed)) continue;
      sleepers++;
      wake.wait(guard);
      sleepers--;
    }
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  State *state = state_.get();
  state->calls.reserve(64);
  try {
    for (int i = 1; i < num_threads; i++) state->helpers.emplace_back([state] { state->help(); });
  } catch (const std::system_error &) {
    // The system grants no more threads: go on with those there are.
  }
  state->num_threads = 1 + static_cast<int>(state->helpers.size());
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard guard(state_->lock);
    state_->stop.store(true, std::memory_order_relaxed);
  }
  state_->wake.notify_all();
  for (std::thread &helper : state_->helpers) helper.join();
}

int ThreadPool::num_threads() const { return state_->num_threads; }

void ThreadPool::run(int64_t count, int64_t grain, Piece piece, void *context) {
  State &state = *state_;
  int64_t grains = (count - 1) / grain + 1;
  int64_t pieces = std::min<int64_t>(grains, int64_t{state.num_threads} * kPiecesPerThread);
  State::Call call{};
  call.count = count;
  call.step = ((grains - 1) / pieces + 1) * grain;
  call.piece = piece;
  call.context = context;
  int sleepers;
  {
    std::lock_guard guard(state.lock);
    state.calls.push_back(&call);
    state.num_started.fetch_add(1, std::memory_order_relaxed);
    sleepers = state.sleepers;
  }
  int64_t wanted = std::min<int64_t>(sleepers, pieces - 1);
  if (wanted > 0 && wanted == sleepers) state.wake.notify_all();
  else
    for (int64_t i = 0; i < wanted; i++) state.wake.notify_one();
  call.work();
  {
    std::lock_guard guard(state.lock);
    std::erase(state.calls, &call);
  }
  auto finished = [&call] { return call.helpers.load(std::memory_order_acquire) == 0; };
  if (spin_until(finished, kCallerSpinMicroseconds)) return;
  std::unique_lock guard(state.lock);
  call.waiting = true;
  state.done.wait(guard, finished);
}

}  // namespace zs
