// A few threads that sleep between jobs: run() calls the work once on each, and on the caller, and returns when all
// are done. For waiting on disks; kernels have core/threadpool.h, whose threads spin.
#pragma once
#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace zs {

class Crew {
 public:
  explicit Crew(int size) {  // the caller included
    try {
      for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { loop(i); });
    } catch (const std::system_error &) {
      // As many as the system gives; the caller alone is enough.
    }
  }
  ~Crew() {
    {
      std::lock_guard guard(lock_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread &thread : threads_) thread.join();
  }
  Crew(const Crew &) = delete;
  Crew &operator=(const Crew &) = delete;

  // `work` must not throw. At most `hands` take part.
  void run(int hands, const std::function<void(int)> &work) {
    int others = std::min(hands - 1, static_cast<int>(threads_.size()));
    if (others > 0) {
      std::lock_guard guard(lock_);
      work_ = &work;
      wanted_ = busy_ = others;
      round_++;
      wake_.notify_all();
    }
    work(0);
    if (others <= 0) return;
    std::unique_lock guard(lock_);
    done_.wait(guard, [this] { return busy_ == 0; });
  }

 private:
  void loop(int index) {
    std::unique_lock guard(lock_);
    for (uint64_t seen = 0;;) {
      wake_.wait(guard, [&] { return stop_ || (round_ != seen && index <= wanted_); });
      if (stop_) return;
      seen = round_;
      const std::function<void(int)> &work = *work_;
      guard.unlock();
      work(index);
      guard.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex lock_;
  std::condition_variable wake_, done_;
  const std::function<void(int)> *work_ = nullptr;
  uint64_t round_ = 0;
  int wanted_ = 0, busy_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace zs
