#include "streams.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "memory.h"

namespace zs::stand_in {

namespace {

// Never destroyed: streams run on while the process ends.
struct Shared {
  std::mutex lock;
  std::condition_variable moved;
  std::vector<Stream *> streams;
  std::string failure;
  uint32_t seed = 1;
};
Shared &shared() {
  static Shared *made = new Shared;
  return *made;
}

// Microseconds that a stream rests now and then, at most: ZEROSHARD_STAND_IN_DELAY.
unsigned most_delay() {
  static const unsigned delay = [] {
    const char *said = getenv("ZEROSHARD_STAND_IN_DELAY");
    return said ? static_cast<unsigned>(atoi(said)) : 200u;
  }();
  return delay;
}

void run_on_device(const std::function<void()> &work) {
  Running running;
  {
    std::lock_guard guard(shared().lock);
    if (!shared().failure.empty()) return;
  }
  work();
  if (const char *error = shim::take_error()) {
    std::lock_guard guard(shared().lock);
    shared().failure = error;
  }
}

}  // namespace

Stream::Stream() {
  std::lock_guard guard(shared().lock);
  random_.seed(shared().seed++);
  shared().streams.push_back(this);
  thread_ = std::thread([this] { run(); });
}

Stream::~Stream() {
  {
    std::lock_guard guard(shared().lock);
    ends_ = true;
    shared().moved.notify_all();
  }
  thread_.join();
  std::lock_guard guard(shared().lock);
  std::erase(shared().streams, this);
}

void Stream::queue(Task task) {
  std::lock_guard guard(shared().lock);
  tasks_.push_back(std::move(task));
  queued_++;
  shared().moved.notify_all();
}

void Stream::add(std::function<void()> work) { queue({std::move(work), nullptr, nullptr}); }

std::shared_ptr<Moment> Stream::record() {
  auto moment = std::make_shared<Moment>();
  queue({nullptr, nullptr, moment});
  return moment;
}

void Stream::wait_for(std::shared_ptr<Moment> moment) { queue({nullptr, std::move(moment), nullptr}); }

void Stream::synchronize() {
  std::unique_lock guard(shared().lock);
  const size_t all = queued_;
  shared().moved.wait(guard, [&] { return done_ >= all; });
}

void Stream::run() {
  std::unique_lock guard(shared().lock);
  for (;;) {
    if (tasks_.empty()) {
      guard.unlock();
      close_memory();
      guard.lock();
    }
    shared().moved.wait(guard, [this] { return ends_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    if (task.waits) shared().moved.wait(guard, [&] { return task.waits->passed; });
    if (task.work) {
      const unsigned rest = random_() % 8 == 0 && most_delay() > 0 ? random_() % most_delay() : 0;
      guard.unlock();
      if (rest > 0) usleep(rest);
      run_on_device(task.work);
      task.work = nullptr;
      guard.lock();
    }
    if (task.tells) task.tells->time = std::chrono::steady_clock::now(), task.tells->passed = true;
    done_++;
    shared().moved.notify_all();
  }
}

bool passed(const std::shared_ptr<Moment> &moment) {
  std::lock_guard guard(shared().lock);
  return !moment || moment->passed;
}

void wait(const std::shared_ptr<Moment> &moment) {
  std::unique_lock guard(shared().lock);
  if (moment) shared().moved.wait(guard, [&] { return moment->passed; });
}

void synchronize_all() {
  std::vector<std::shared_ptr<Moment>> ends;
  std::vector<Stream *> streams;
  {
    std::lock_guard guard(shared().lock);
    streams = shared().streams;
  }
  for (Stream *stream : streams) ends.push_back(stream->record());
  for (const auto &end : ends) wait(end);
}

const char *failure() {
  std::lock_guard guard(shared().lock);
  return shared().failure.empty() ? nullptr : shared().failure.c_str();
}

}  // namespace zs::stand_in
