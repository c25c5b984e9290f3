// The runtime's traffic with the host: writes, reads, waits, and who is told of failures.
#include <condition_variable>
#include <cstring>
#include <mutex>

#include "runtime.h"

namespace zs {

namespace {

// Where a task works, and whether its tensor is there.
struct Place {
  DeviceStream *device;
  bool on_device;
};

Place place_of(const Stream &stream, const Tensor &tensor) { return {stream.device(), tensor.storage->on_device}; }

class WriteJob : public Job {
 public:
  WriteJob(Place place, void *target, const void *source, size_t bytes)
      : place_(place), target_(target), staged_(new char[bytes]), bytes_(bytes) {
    memcpy(staged_.get(), source, bytes);
  }
  void run() override {
    if (place_.on_device) return place_.device->copy(target_, staged_.get(), bytes_, ZS_TO_DEVICE);
    if (place_.device) place_.device->synchronize();
    memcpy(target_, staged_.get(), bytes_);
  }

 private:
  Place place_;
  void *target_;
  std::unique_ptr<char[]> staged_;
  size_t bytes_;
};

// Copies (nothing, for a synchronisation), then tells. On a device others wait for that, so that the stream goes on.
class ReadJob : public Job {
 public:
  ReadJob(Stream &stream, bool on_device, void *target, const void *source, size_t bytes, Runtime::Done done)
      : stream_(stream), on_device_(on_device), target_(target), source_(source), bytes_(bytes), done_(std::move(done)) {}
  void run() override {
    DeviceStream *device = stream_.device();
    if (device && (bytes_ == 0 || (on_device_ && bytes_ <= kMostBeside))) return read_beside(*device);
    settled_ = device;
    if (device && on_device_) {
      device->copy(target_, source_, bytes_, ZS_TO_HOST);
    } else {
      if (device) device->synchronize();
      if (bytes_ > 0) memcpy(target_, source_, bytes_);
    }
    done_(nullptr);
  }
  void drop(const std::shared_ptr<Failure> &failure) override {
    if (failure) done_(failure);
  }
  bool is_work() const override { return bytes_ > 0; }
  bool settles() const override { return settled_; }

 private:
  static constexpr size_t kMostBeside = size_t{8} << 20;

  void read_beside(DeviceStream &device) {
    std::shared_ptr<char> pinned;
    if (bytes_ > 0) {
      pinned = {stream_.waiter().take(bytes_), [&waiter = stream_.waiter()](char *data) { waiter.give_back(data); }};
      device.copy(pinned.get(), source_, bytes_, ZS_TO_HOST_PINNED);
    }
    stream_.when_done([pinned, target = target_, bytes = bytes_, done = done_](std::shared_ptr<Failure> failure) {
      if (pinned && !failure) memcpy(target, pinned.get(), bytes);
      done(std::move(failure));
    });
  }
  Stream &stream_;
  bool on_device_;
  void *target_;
  const void *source_;
  size_t bytes_;
  Runtime::Done done_;
  bool settled_ = false;
};

// For a thread that waits for Done.
struct Told {
  std::mutex lock;
  std::condition_variable moved;
  bool is = false;
  std::shared_ptr<Failure> failure;

  static Runtime::Done done(const std::shared_ptr<Told> &told) {
    return [told](std::shared_ptr<Failure> found) {
      std::lock_guard guard(told->lock);
      told->failure = std::move(found);
      told->is = true;
      told->moved.notify_one();
    };
  }
  std::shared_ptr<Failure> wait() {
    std::unique_lock guard(lock);
    moved.wait(guard, [this] { return is; });
    return failure;
  }
};

}  // namespace

void Runtime::check_bytes(const Tensor &tensor, size_t bytes) const {
  if (static_cast<size_t>(tensor.bytes()) != bytes)
    throw Error{"SHAPE", text("the array has %zu bytes, the tensor %lld", bytes,
                              static_cast<long long>(tensor.bytes()))};
}

void Runtime::write(double handle, const void *source, size_t bytes, int index, bool constant) {
  if (!constant) refuse_in_capture("a write from the host that is not said to be constant");
  Tensor &tensor = memory_.find(handle);
  check_bytes(tensor, bytes);
  if (bytes == 0) return;
  if (serial_) index = 0;
  Hazards &hazards = tensor.storage->hazards;
  if (!on_device() && !group_.progress.busy(hazards)) {
    // Hazards stay: what failed to write another part of this storage is still to be found out.
    memcpy(tensor.range.data, source, bytes);
    return;
  }
  Waits waits;
  hazards.before_write(waits);
  if (capture_ && tensor.storage->on_device)
    return hazards.did_write(index, push_constant(index, tensor, source, bytes, waits));
  Stream &stream = this->stream(index);
  auto job = std::make_unique<WriteJob>(place_of(stream, tensor), tensor.range.data, source, bytes);
  hazards.did_write(index, stream.push_job(std::move(job), "write", waits));
}

void Runtime::read(double handle, void *target, size_t bytes, int index, Done done) {
  refuse_in_capture("a read by the host");
  Tensor &tensor = memory_.find(handle);
  check_bytes(tensor, bytes);
  if (serial_) index = 0;
  Waits waits;
  tensor.storage->hazards.before_read(waits);
  Stream &stream = this->stream(index);
  auto job = std::make_unique<ReadJob>(stream, tensor.storage->on_device, target, tensor.range.data, bytes,
                                       std::move(done));
  uint64_t sequence = stream.push_job(std::move(job), "read", waits);
  tensor.storage->hazards.did_read(index, sequence);
}

int Runtime::synchronize(int index, Done done) {
  refuse_in_capture("a wait for the device");
  if (serial_) index = 0;
  int count = 0;
  for (int s = 0; s < kNumStreams; s++) {
    if (index >= 0 ? s != index : !streams_[s] && s != 0) continue;
    Stream &one = stream(s);
    one.push_job(std::make_unique<ReadJob>(one, false, nullptr, nullptr, 0, done), "synchronize", {});
    count++;
  }
  return count;
}

void Runtime::read_now(double handle, void *target, size_t bytes, int index) {
  auto told = std::make_shared<Told>();
  read(handle, target, bytes, index, Told::done(told));
  if (serial_) index = 0;
  group_.wait(index, streams_[index]->last());
  if (auto failure = told->wait()) rethrow(*failure);
}

void Runtime::synchronize_now(int index) {
  std::shared_ptr<Told> all[kNumStreams];
  if (serial_) index = 0;
  for (int s = 0; s < kNumStreams; s++) {
    if (index >= 0 ? s != index : !streams_[s]) continue;
    all[s] = std::make_shared<Told>();
    synchronize(s, Told::done(all[s]));
  }
  for (int s = 0; s < kNumStreams; s++)
    if ((index < 0 || s == index) && streams_[s]) group_.wait(s, streams_[s]->last());
  std::shared_ptr<Failure> first;
  for (auto &one : all) {
    auto failure = one ? one->wait() : nullptr;
    if (!failure) continue;
    if (!first) first = failure;
    told(*failure);
  }
  if (first) rethrow(*first);
}

void Runtime::told(Failure &failure) {
  if (failure.told) return;
  failure.told = true;
  for (int s = 0; s < kNumStreams; s++) {
    failure.run_again[s].store(streams_[s] ? streams_[s]->last() + 1 : 1);
    if (streams_[s]) streams_[s]->forget_waits();
  }
}

void Runtime::rethrow(Failure &failure) {
  told(failure);
  throw failure.error;
}

}  // namespace zs
