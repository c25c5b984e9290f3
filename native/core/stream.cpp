#include "stream.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "dtype.h"
#include "nvtx.h"
#include "spin.h"
#include "stream_task.h"

namespace zs {

namespace {

// Some 20,000 operations; then the caller waits. A padding record at the very end may reach beyond it.
constexpr size_t kRing = size_t{8} << 20;
constexpr int kSpinMicroseconds = 30;
constexpr size_t kCollectAt = 256;  // launched tasks that a trace waits for, before their stream looks at them itself

// "matmul f32[8,64] f32[8,32] f32[32,64]": outputs first, absent tensors left out. Of a collective: its group and size.
std::string range_of(const char *name, const zs_tensor *tensors, int count) {
  std::string words = name;
  for (int i = 0; i < count; i++) {
    const zs_tensor &tensor = tensors[i];
    if (tensor.dtype < 0) continue;
    words += text(" %s[", kDtypeNames[tensor.dtype]);
    for (int d = 0; d < tensor.ndim; d++) words += text(d ? ",%lld" : "%lld", static_cast<long long>(tensor.dims[d]));
    words += "]";
  }
  return words;
}

std::string range_of(const char *name, const TraceDetail &detail) {
  if (detail.kind < 0 && detail.bytes == 0) return name;
  std::string words = text("%s %lld bytes", name, static_cast<long long>(detail.bytes));
  if (detail.kind >= 0) words += text(", group %d of %d ranks", detail.group, detail.group_size);
  return words;
}

}  // namespace

bool StreamGroup::wait(int stream, uint64_t sequence) {
  auto done = [&] { return progress.reached(stream, sequence) || stop.load(); };
  if (!spin_until(done, kSpinMicroseconds)) {
    waiters.fetch_add(1);
    std::unique_lock guard(lock);
    moved.wait(guard, [&] { return progress.completed[stream].load() >= sequence || stop.load(); });
    waiters.fetch_sub(1);
  }
  return progress.reached(stream, sequence);
}

// Either this sees the waiter, or the waiter, who counts itself first, sees the progress.
void StreamGroup::complete(int stream, uint64_t sequence) {
  progress.completed[stream].store(sequence);
  if (waiters.load() == 0) return;
  { std::lock_guard guard(lock); }
  moved.notify_all();
}

Stream::Stream(int index, StreamGroup *group, Stream *const *peers, std::unique_ptr<DeviceStream> device,
               bool serial)
    : index_(index),
      group_(group),
      peers_(peers),
      ring_(new char[kRing + kTaskAlign + sizeof(Task)]),
      device_(std::move(device)),
      serial_(serial) {
  if (device_) {
    group_->launched[index_].store(&launched_);
    waiter_ = std::make_unique<Waiter>(*device_);
  }
  thread_ = std::thread([this] { loop(); });
}

Stream::~Stream() { stop(); }

void Stream::stop() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard guard(lock_);
    wake_.notify_all();
  }
  {
    std::lock_guard guard(group_->lock);
    group_->moved.notify_all();
  }
  thread_.join();
  if (waiter_) waiter_->stop();
}

// A record of this size at the head of the ring; waits while there is no place.
Stream::Task *Stream::reserve(size_t bytes) {
  bytes = (bytes + kTaskAlign - 1) / kTaskAlign * kTaskAlign;
  uintptr_t base = (reinterpret_cast<uintptr_t>(ring_.get()) + kTaskAlign - 1) / kTaskAlign * kTaskAlign;
  uint64_t head = head_.load(std::memory_order_relaxed);
  size_t to_end = kRing - head % kRing;
  size_t padding = to_end < bytes ? to_end : 0;
  auto room = [&] {
    return kRing - (head - tail_.load(std::memory_order_acquire)) >= bytes + padding;
  };
  if (!room()) {
    // Sleeps through some tasks at a time, so that the queue is not fed one by one.
    while (!spin_until(room, kSpinMicroseconds)) {
      uint64_t completed = group_->progress.completed[index_].load();
      group_->wait(index_, std::min(last_, completed + 64));
    }
  }
  char *place = reinterpret_cast<char *>(base) + head % kRing;
  if (padding) {
    Task *skip = new (place) Task{};
    skip->bytes = padding;
    head_.store(head + padding);
    place = reinterpret_cast<char *>(base);
  }
  Task *task = new (place) Task{};
  task->bytes = bytes;
  reserved_ = task;
  return task;
}

Stream::KernelSlot Stream::kernel_slot(int num_tensors, int num_scalars) {
  Task *task = reserve(sizeof(Task) + static_cast<size_t>(num_tensors) * sizeof(zs_tensor) +
                       static_cast<size_t>(num_scalars) * sizeof(double));
  task->num_tensors = num_tensors;
  task->num_scalars = num_scalars;
  return {task->tensors(), task->scalars()};
}

uint64_t Stream::push_kernel(zs_kernel kernel, const char *name, void *context,
                             const Waits &waits) {
  reserved_->kernel = kernel;
  reserved_->name = name;
  reserved_->context = context;
  return push(waits);
}

uint64_t Stream::push_job(std::unique_ptr<Job> job, const char *name, const Waits &waits) {
  Task *task = reserve(sizeof(Task));
  task->job = job.release();
  task->name = name;
  return push(waits);
}

uint64_t Stream::push(const Waits &waits) {
  Task *task = reserved_;
  task->sequence = ++last_;
  if (group_->trace.on()) task->queued = monotonic_now();
  for (int s = 0; s < kNumStreams; s++) {
    uint64_t wanted = waits.sequence[s];
    if (s == index_ || wanted <= waited_[s]) continue;
    waited_[s] = wanted;
    task->waits.sequence[s] = wanted;
  }
  if (device_) mark_peers(task);
  // Sequentially consistent, as is the sleeper's mark: one of the two sees the other.
  head_.store(head_.load(std::memory_order_relaxed) + task->bytes);
  if (sleeping_.load()) {
    { std::lock_guard guard(lock_); }
    wake_.notify_one();
  }
  return last_;
}

// Denormals stay as IEEE has them (no FTZ, no DAZ), here and in the pool: a result must not depend
// on which thread computed it.
void Stream::loop() {
  uintptr_t base = (reinterpret_cast<uintptr_t>(ring_.get()) + kTaskAlign - 1) / kTaskAlign * kTaskAlign;
  bool attached = !device_;
  if (nvtx::on()) nvtx::name_thread(text("zeroshard %s", kStreamNames[index_]).c_str());
  while (next()) {
    uint64_t tail = tail_.load(std::memory_order_relaxed);
    Task *task = reinterpret_cast<Task *>(base + tail % kRing);
    size_t bytes = task->bytes;
    uint64_t sequence = task->sequence;
    bool padding = !task->name;
    if (!padding && !attached) attached = attach(task);
    if (!padding) execute(task);
    tail_.store(tail + bytes, std::memory_order_release);
    if (!padding) group_->complete(index_, sequence);
  }
}

// Whether there is a task; false: stopped and nothing left (what is left is dropped, not run).
bool Stream::next() {
  auto ready = [this] {
    return head_.load() != tail_.load(std::memory_order_relaxed) || group_->stop.load();
  };
  if (!spin_until(ready, kSpinMicroseconds)) {
    std::unique_lock guard(lock_);
    sleeping_.store(true);
    wake_.wait(guard, ready);
    sleeping_.store(false);
  }
  return head_.load() != tail_.load(std::memory_order_relaxed);
}

// Even a task that is skipped waits first: those that wait for it rely on what it waited for.
void Stream::execute(Task *task) {
  is_poisoned(task->sequence);  // a failure that was told ends here, before a new one is inherited
  if (has_late_.load(std::memory_order_acquire)) take_late_failure(task);
  running_ = task->sequence;
  running_name_ = task->name;
  std::unique_ptr<Marks> marks(task->marks);
  bool stopped = !wait_for_others(task) || group_->stop.load(std::memory_order_relaxed);
  std::unique_ptr<Job> job(task->job);
  if (stopped || is_poisoned(task->sequence)) {
    if (job) job->drop(stopped ? nullptr : failure_);
    return;
  }
  bool is_work = !job || job->is_work();
  bool ranges = is_work && nvtx::on();
  if (ranges) {
    std::string words = job ? range_of(task->name, job->detail())
                            : range_of(task->name, task->tensors(), task->num_tensors);
    nvtx::push(words.c_str());
  }
  std::optional<Moment> begin = is_work ? moment() : std::nullopt;
  uint64_t start = monotonic_now();
  bool done = perform(task, job.get());
  if (ranges) nvtx::pop();
  if (!done && job) job->drop(failure_);
  if (is_work) count(task, job.get(), start, monotonic_now(), std::move(begin));
}

// False: it failed, and the stream is poisoned.
bool Stream::perform(Task *task, Job *job) {
  try {
    std::unique_lock<std::mutex> alone = this->alone();
    if (device_ && (!job || job->is_work())) launched_.add(task->name);
    if (job) job->run();
    else run_kernel(task);
    if (device_) settle(task, job);
    return true;
  } catch (const Error &error) {
    fail(task, error.code.c_str(), error.message.c_str());
  } catch (const std::bad_alloc &) {
    fail(task, "OUT_OF_MEMORY", "no memory left for the operation's work space");
  } catch (const std::exception &error) {
    fail(task, "INTERNAL", error.what());
  }
  return false;
}

void Stream::count(Task *task, const Job *job, uint64_t start, uint64_t end, std::optional<Moment> begin) {
  busy_nanoseconds_.store(busy_nanoseconds_.load(std::memory_order_relaxed) + (end - start),
                          std::memory_order_relaxed);
  num_ops_.store(num_ops_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (!group_->trace.on()) return;
  TraceRecord record{task->name, index_, task->queued ? task->queued : start, start, start, end, {}};
  if (job) record.detail = job->detail();
  else record.detail.flops = kernel_flops(task->name, task->scalars());
  std::optional<Moment> after = begin ? moment() : std::nullopt;
  if (!after) return group_->trace.add(record);
  launched_tasks_.add(record, std::move(*begin), std::move(*after));
  collect_times(kCollectAt);
}

// Names the operation, unless the message already does.
std::shared_ptr<Failure> Stream::make_failure(const char *name, const char *code, const char *message) {
  auto failure = std::make_shared<Failure>();
  bool captures = group_->capture.on.load();
  failure->error.code = code;
  if (message[0] == '[') failure->error.message = message;
  else if (device_ && failure->error.code == "DEVICE" && !captures) failure->error.message = blame(message);
  else failure->error.message = text("[%s] %s", name, message);
  return failure;
}

// What is captured is not under way on the device: whatever goes wrong is this task's fault.
void Stream::fail(const Task *task, const char *code, const char *message) {
  std::shared_ptr<Failure> failure = make_failure(task->name, code, message);
  if (group_->capture.on.load()) group_->capture.fail(failure->error);
  set_poison(std::move(failure), task->sequence);
}

void Stream::run_kernel(Task *task) {
  zs_call call;
  call.tensors = task->tensors();
  call.scalars = task->scalars();
  call.stream = device_ ? device_->stream().native : nullptr;
  call.context = device_ && !task->context ? device_->stream().context : task->context;
  call.error[0] = 0;
  int32_t status = task->kernel(&call);
  if (status == ZS_OK) return;
  call.error[sizeof call.error - 1] = 0;
  throw Error{status_code(status), call.error[0] ? call.error : "the kernel failed"};
}

// A skipped task's dependents are skipped too, unless they were queued after the user was told.
bool Stream::wait_for_others(const Task *task) {
  for (int s = 0; s < kNumStreams; s++) {
    uint64_t wanted = task->waits.sequence[s];
    if (wanted == 0) continue;
    if (!group_->wait(s, wanted)) return false;
    if (task->marks && !pass_mark(task, s)) return false;
    if (!peers_[s]->ever_failed_.load(std::memory_order_acquire)) continue;
    std::shared_ptr<Failure> failure = peers_[s]->failure_of(wanted);
    if (failure && !poisoned_ && task->sequence < failure->run_again[index_].load())
      set_poison(std::move(failure), task->sequence);
  }
  return true;
}

std::shared_ptr<Failure> Stream::failure_of(uint64_t sequence) {
  std::lock_guard guard(failure_lock_);
  return failure_ && sequence >= failed_from_ && sequence < failed_to_ ? failure_ : nullptr;
}

void Stream::set_poison(std::shared_ptr<Failure> failure, uint64_t sequence) {
  std::lock_guard guard(failure_lock_);
  failure_ = std::move(failure);
  failed_from_ = sequence;
  failed_to_ = kNever;
  poisoned_ = true;
  ever_failed_.store(true, std::memory_order_release);
}

bool Stream::is_poisoned(uint64_t sequence) {
  if (!poisoned_) return false;
  if (sequence < failure_->run_again[index_].load()) return true;
  std::lock_guard guard(failure_lock_);
  failed_to_ = sequence;
  poisoned_ = false;
  return false;
}

}  // namespace zs
