// A stream: a thread and a queue of tasks that it runs in order. A task names, for each other stream,
// the task that must be done first. Tasks lie one after another in a ring of bytes, so that queueing
// an operation allocates nothing; a stream that is awake is not notified.
//
// A task that fails poisons its stream: later tasks are skipped, and so are tasks of other streams
// that wait for a skipped one, until the owner has told the user (Failure::told). What was queued up
// to that moment is lost; what is queued after it runs.
//
// On a device the thread launches, and a task is done when it is launched. A task that waits for another
// stream's waits for that launch, and then has its device stream wait for an event which was put behind
// just those tasks that were queued before it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "../backend/backend.h"
#include "device.h"
#include "device_clock.h"
#include "error.h"
#include "hazard.h"
#include "trace.h"
#include "waiter.h"

namespace zs {

inline constexpr uint64_t kNever = UINT64_MAX;

struct Failure {
  Error error;
  // Tasks of stream s from run_again[s] on are run: they were queued after the user was told.
  std::atomic<uint64_t> run_again[kNumStreams] = {kNever, kNever, kNever, kNever, kNever};
  bool told = false;  // touched by the owner's thread only
};

// Work that is not a kernel. Deleted after run() or drop(), on the stream's thread.
class Job {
 public:
  virtual ~Job() = default;
  virtual void run() = 0;  // may throw Error; then drop() is told of it
  // The stream is poisoned (with the failure), or is being stopped (nullptr).
  virtual void drop(const std::shared_ptr<Failure> &) {}
  virtual bool is_work() const { return true; }  // counted in the stream's statistics
  virtual bool settles() const { return false; }  // when it has run, the device has done all before it
  virtual TraceDetail detail() const { return {}; }
};

// A graph that is being captured: streams queue one at a time, and the first thing that goes wrong is kept, as the
// graph would lack it.
struct Capture {
  std::atomic<bool> on{false};
  std::mutex queueing;
  void fail(const Error &error) {
    std::lock_guard guard(lock_);
    if (!error_) error_ = std::make_unique<Error>(error);
  }
  std::unique_ptr<Error> take_error() {
    std::lock_guard guard(lock_);
    return std::move(error_);
  }

 private:
  std::mutex lock_;
  std::unique_ptr<Error> error_;
};

// What streams share: progress, the sleep of those who wait for it, the stop flag, the trace.
struct StreamGroup {
  Progress progress;
  std::mutex lock;
  std::condition_variable moved;
  std::atomic<int> waiters{0};
  std::atomic<bool> stop{false};
  Trace trace;
  std::unique_ptr<DeviceClock> clock;  // of a device
  std::atomic<const Launched *> launched[kNumStreams] = {};  // of device streams
  Capture capture;
  // False when stopped before the task was done.
  bool wait(int stream, uint64_t sequence);
  void complete(int stream, uint64_t sequence);
};

class Stream {
 public:
  // `peers`: all streams of the runtime, for the failures of those that a task waits for. `device`: nullptr on
  // the host. `serial`: each task is waited for, so that what fails on the device is known by its name.
  Stream(int index, StreamGroup *group, Stream *const *peers, std::unique_ptr<DeviceStream> device = nullptr,
         bool serial = false);
  ~Stream();  // after stop(): drops what is queued
  Stream(const Stream &) = delete;
  Stream &operator=(const Stream &) = delete;

  uint64_t last() const { return last_; }  // sequence of the newest task; 0: none yet
  // Where the next kernel's tensors and scalars are to be written; then push_kernel() queues it.
  struct KernelSlot {
    zs_tensor *tensors;
    double *scalars;
  };
  KernelSlot kernel_slot(int num_tensors, int num_scalars);
  uint64_t push_kernel(zs_kernel kernel, const char *name, void *context, const Waits &waits);
  uint64_t push_job(std::unique_ptr<Job> job, const char *name, const Waits &waits);
  // After a failure was told: what is queued from now on looks again at what it waits for, as a
  // skipped task may have hidden another failure.
  void forget_waits() { std::fill_n(waited_, kNumStreams, 0); }
  // All streams are idle: nothing that was queued before need be waited for, nor can a graph wait for it.
  void forget_past();
  void collect_times(size_t least = 1);  // to the trace: tasks that the device has done
  void forget_times() { launched_tasks_.clear(); }
  // On a device, puts an event behind what is queued: who waits for it does not wait for what comes later.
  void place_mark();
  void stop();  // after StreamGroup::stop is set
  DeviceStream *device() const { return device_.get(); }  // for its own tasks
  // For a job of this stream while it runs, on a device: `after` is called once all that was queued is done there, on
  // another thread, with the failure or nullptr; not at all if the stream ends first. A failure poisons the stream.
  using After = std::function<void(std::shared_ptr<Failure>)>;
  void when_done(After after);
  Waiter &waiter() { return *waiter_; }  // of when_done(): its pinned memory
  double busy_seconds() const {
    return 1e-9 * static_cast<double>(busy_nanoseconds_.load(std::memory_order_relaxed));
  }
  uint64_t num_ops() const { return num_ops_.load(std::memory_order_relaxed); }

 private:
  struct Task;
  Task *reserve(size_t bytes);
  uint64_t push(const Waits &waits);
  void loop();
  bool next();
  void execute(Task *task);
  bool wait_for_others(const Task *task);
  void mark_peers(Task *task);
  void settle(const Task *task, const Job *job);
  std::unique_lock<std::mutex> alone();
  bool attach(const Task *task);
  bool pass_mark(const Task *task, int peer);
  std::string blame(const char *message);
  void has_finished(uint64_t sequence, uint64_t launched);
  std::shared_ptr<Failure> failure_from(const Error &error);
  void take_late_failure(const Task *task);
  std::shared_ptr<Failure> failure_of(uint64_t sequence);
  void set_poison(std::shared_ptr<Failure> failure, uint64_t sequence);
  bool is_poisoned(uint64_t sequence);
  void run_kernel(Task *task);
  bool perform(Task *task, Job *job);
  std::optional<Moment> moment();
  void count(Task *task, const Job *job, uint64_t start, uint64_t end, std::optional<Moment> begin);
  void fail(const Task *task, const char *code, const char *message);
  std::shared_ptr<Failure> make_failure(const char *name, const char *code, const char *message);

  const int index_;
  StreamGroup *const group_;
  Stream *const *const peers_;

  // Owner's side.
  uint64_t last_ = 0;
  uint64_t waited_[kNumStreams] = {};  // what earlier tasks of this stream have waited for already
  struct Placed {
    uint64_t sequence;  // of the job that puts it there
    std::shared_ptr<Mark> mark;
  };
  std::deque<Placed> placed_;  // the newest events behind this stream's tasks, in order
  Task *reserved_ = nullptr;
  std::unique_ptr<char[]> ring_;
  std::thread thread_;

  // Both. Positions grow without end; modulo the size they are places in the ring.
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
  std::atomic<bool> sleeping_{false};
  std::mutex lock_;
  std::condition_variable wake_;
  std::atomic<bool> ever_failed_{false};
  std::mutex failure_lock_;
  std::shared_ptr<Failure> failure_;  // the newest, which covers the tasks [from, to)
  uint64_t failed_from_ = 0, failed_to_ = 0;

  // The thread's side.
  const std::unique_ptr<DeviceStream> device_;
  const bool serial_;
  Launched launched_;
  LaunchedTasks launched_tasks_;  // locks
  bool poisoned_ = false;
  uint64_t running_ = 0;  // the task's sequence
  const char *running_name_ = nullptr;
  // What was found out behind the thread's back: guarded by failure_lock_, but for the flag.
  std::shared_ptr<Failure> late_;
  std::atomic<bool> has_late_{false};
  std::unique_ptr<Waiter> waiter_;
  std::atomic<uint64_t> busy_nanoseconds_{0};
  std::atomic<uint64_t> num_ops_{0};
};

}  // namespace zs
