// What a stream on a device does beside launching: events between streams, and whose fault a late error is.
#include <algorithm>

#include "stream_task.h"

namespace zs {

namespace {

constexpr size_t kMarks = 32;

// Puts an event behind what is queued, also on a poisoned stream: what was queued before the failure is
// waited for by others.
class MarkJob : public Job {
 public:
  MarkJob(DeviceStream *device, std::shared_ptr<Mark> mark) : device_(device), mark_(std::move(mark)) {}
  void run() override { mark_->event = device_->record(); }
  void drop(const std::shared_ptr<Failure> &failure) override {
    if (!failure) return;
    try {
      mark_->event = device_->record();
    } catch (const Error &) {  // whoever needs the mark finds none
    }
  }
  bool is_work() const override { return false; }

 private:
  DeviceStream *device_;
  std::shared_ptr<Mark> mark_;
};

}  // namespace

void Stream::place_mark() {
  if (!device_ || (!placed_.empty() && placed_.back().sequence == last_)) return;
  auto mark = std::make_shared<Mark>(device_->backend());
  placed_.push_back({push_job(std::make_unique<MarkJob>(device_.get(), mark), "mark", {}), mark});
  if (placed_.size() > kMarks) placed_.pop_front();
}

// The first event behind what the task waits for, of those that there are; else one behind what there is so far.
void Stream::mark_peers(Task *task) {
  for (int s = 0; s < kNumStreams; s++) {
    uint64_t wanted = task->waits.sequence[s];
    if (wanted == 0) continue;
    Stream &peer = *peers_[s];
    if (peer.placed_.empty() || peer.placed_.back().sequence < wanted) peer.place_mark();
    auto found = std::find_if(peer.placed_.begin(), peer.placed_.end(),
                              [wanted](const Placed &placed) { return placed.sequence >= wanted; });
    if (!task->marks) task->marks = new Marks;
    task->marks->mark[s] = found->mark;
    task->marks->sequence[s] = found->sequence;
  }
}

// False: stopped first.
bool Stream::pass_mark(const Task *task, int peer) {
  if (!group_->wait(peer, task->marks->sequence[peer])) return false;
  try {
    void *event = task->marks->mark[peer]->event;
    if (!event) throw Error{"DEVICE", text("the %s stream has no event to wait for", kStreamNames[peer])};
    std::unique_lock<std::mutex> alone = this->alone();
    device_->wait(event);
  } catch (const Error &error) {
    if (!poisoned_) fail(task, error.code.c_str(), error.message.c_str());
  }
  return true;
}

// False: the task fails with the reason, the next tries again.
bool Stream::attach(const Task *task) {
  try {
    device_->attach();
    return true;
  } catch (const Error &error) {
    fail(task, error.code.c_str(), error.message.c_str());
    return false;
  }
}

void Stream::settle(const Task *task, const Job *job) {
  bool settled = job && job->settles();
  if (serial_ && !settled && !device_->capturing() && (!job || job->is_work())) {
    device_->synchronize();
    settled = true;
  }
  if (settled) has_finished(task->sequence, launched_.count.load());
}

void Stream::has_finished(uint64_t sequence, uint64_t launched) {
  launched_.settle(launched);
  std::atomic<uint64_t> &finished = group_->progress.finished[index_];
  uint64_t before = finished.load(std::memory_order_relaxed);
  while (before < sequence && !finished.compare_exchange_weak(before, sequence, std::memory_order_release)) {
  }
}

void Stream::when_done(After after) {
  waiter_->push(device_->record(), [this, after = std::move(after), sequence = running_,
                                    name = running_name_, launched = launched_.count.load()](const Error *error) {
    std::shared_ptr<Failure> failure;
    {
      std::lock_guard guard(failure_lock_);
      if (late_ && sequence < late_->run_again[index_].load()) failure = late_;  // which is not told yet
    }
    if (error && !failure) {
      failure = make_failure(name, error->code.c_str(), error->message.c_str());
      std::lock_guard guard(failure_lock_);
      late_ = failure;
      has_late_.store(true, std::memory_order_release);
    }
    has_finished(sequence, launched);
    after(std::move(failure));
  });
}

// A failure that was found while this thread went on: what was queued before the user is told is skipped from here on.
void Stream::take_late_failure(const Task *task) {
  std::shared_ptr<Failure> failure;
  {
    std::lock_guard guard(failure_lock_);
    has_late_.store(false, std::memory_order_relaxed);
    failure = late_;
  }
  if (!poisoned_ && task->sequence < failure->run_again[index_].load()) set_poison(std::move(failure), task->sequence);
}

// Held while a graph is captured: what one stream queues changes the graph that all of them are in.
std::unique_lock<std::mutex> Stream::alone() {
  std::unique_lock<std::mutex> guard(group_->capture.queueing, std::defer_lock);
  if (group_->capture.on.load(std::memory_order_acquire)) guard.lock();
  return guard;
}

void Stream::forget_past() {
  for (int s = 0; s < kNumStreams; s++) waited_[s] = peers_[s] ? peers_[s]->last_ : 0;
  placed_.clear();
  group_->progress.finished[index_].store(last_, std::memory_order_release);
}

// Where the device is now, while a trace is on. A device that cannot tell has failed: the task will find out.
std::optional<Moment> Stream::moment() {
  if (!device_ || !group_->trace.on()) return std::nullopt;
  try {
    return device_->moment();
  } catch (const Error &) {
    return std::nullopt;
  }
}

// What fails here has failed on the device, which is told at the next wait.
void Stream::collect_times(size_t least) {
  if (!device_) return;
  try {
    launched_tasks_.collect(*group_->clock, group_->trace, least);
  } catch (const Error &) {
  }
}

// A device tells of a failure at some later call: it was one of what was queued since the last wait.
std::string Stream::blame(const char *message) {
  std::string names, newest;
  uint64_t total = 0;
  for (const auto &pointer : group_->launched) {
    const Launched *one = pointer.load();
    if (!one) continue;
    const Launched &launched = *one;
    uint64_t count = launched.count.load(std::memory_order_acquire), settled = launched.settled.load();
    uint64_t first = count - std::min(count - settled, Launched::kKept);
    total += count - settled;
    for (uint64_t i = first; i < count; i++) {
      newest = launched.names[i % Launched::kKept].load(std::memory_order_relaxed);
      names += text("%s%s", names.empty() ? "" : ", ", newest.c_str());
    }
  }
  launched_.settle(launched_.count.load());
  if (total == 1) return text("[%s] %s", newest.c_str(), message);
  return text("[device] %s; queued since the last wait, %llu in all, the newest: %s; ZEROSHARD_SERIAL=1 names the one",
              message, static_cast<unsigned long long>(total), names.c_str());
}

}  // namespace zs
