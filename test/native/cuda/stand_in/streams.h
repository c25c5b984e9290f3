// Streams and events of the stand-in for a device: a stream is a thread that runs what is queued late and in bursts;
// between streams only events order anything.
#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>

#include "../shim/fibers.h"

namespace zs::stand_in {

// What an event stands for once it is recorded.
struct Moment {
  bool passed = false;
  std::chrono::steady_clock::time_point time;
};

class Stream final : public shim::Stream {
 public:
  Stream();
  ~Stream();  // what is queued ends first
  void add(std::function<void()> work) override;
  std::shared_ptr<Moment> record();
  void wait_for(std::shared_ptr<Moment> moment);
  void synchronize();

 private:
  struct Task {
    std::function<void()> work;
    std::shared_ptr<Moment> waits, tells;
  };
  void queue(Task task);
  void run();

  std::deque<Task> tasks_;
  size_t queued_ = 0, done_ = 0;
  bool ends_ = false;
  std::mt19937 random_;
  std::thread thread_;
};

bool passed(const std::shared_ptr<Moment> &moment);
void wait(const std::shared_ptr<Moment> &moment);
void synchronize_all();

// The first failure of a kernel: as on a device, all that follows fails with it. nullptr: none.
const char *failure();

}  // namespace zs::stand_in
