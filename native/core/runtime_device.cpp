// What a runtime on a device does beside launching kernels: operations on host memory (offloaded states, with
// the device's tensors copied to and fro), zeros, moving a storage to host memory or back.
#include <algorithm>
#include <cstring>

#include "runtime.h"

namespace zs {

namespace {

size_t bytes_of(const zs_tensor &range) {
  return range.data ? static_cast<size_t>(range.count * kDtypeBytes[range.dtype]) : 0;
}

class ZeroJob : public Job {
 public:
  ZeroJob(DeviceStream *device, bool on_device, const zs_tensor &range)
      : device_(device), on_device_(on_device), range_(range) {}
  void run() override {
    if (on_device_) return device_->zero(range_.data, bytes_of(range_));
    device_->synchronize();
    memset(range_.data, 0, bytes_of(range_));
  }

 private:
  DeviceStream *device_;
  bool on_device_;
  zs_tensor range_;
};

// A kernel of the CPU. What it writes is copied to it, too: it may add to it, or leave parts of it.
class HostKernelJob : public Job {
 public:
  HostKernelJob(DeviceStream *device, zs_kernel kernel, const OpInfo &info, ThreadPool *pool)
      : device_(device), kernel_(kernel), info_(info), pool_(pool) {}
  zs_tensor tensors[kMaxTensors];
  double scalars[kMaxScalars];
  bool on_device[kMaxTensors];

  void run() override {
    int count = info_.outputs + info_.inputs;
    Staging staging(device_);
    for (int i = 0; i < count; i++)
      staging.add(tensors[i].data, bytes_of(tensors[i]), on_device[i],
                  i < info_.outputs ? Staging::in_out : Staging::in);
    staging.fetch();
    for (int i = 0; i < count; i++) tensors[i].data = staging.at(i);
    zs_call call = {tensors, scalars, nullptr, pool_, ""};
    int32_t status = kernel_(&call);
    if (status != ZS_OK) throw Error{status_code(status), call.error[0] ? call.error : "the kernel failed"};
    staging.store();
  }
  bool settles() const override { return true; }

 private:
  DeviceStream *device_;
  zs_kernel kernel_;
  const OpInfo &info_;
  ThreadPool *pool_;
};

class MoveJob : public Job {
 public:
  MoveJob(DeviceStream *device, char *target, const char *source, size_t bytes, bool to_device)
      : device_(device), target_(target), source_(source), bytes_(bytes), to_device_(to_device) {}
  void run() override {
    device_->copy(target_, source_, bytes_, to_device_ ? ZS_TO_DEVICE_PINNED : ZS_TO_HOST_PINNED);
  }

 private:
  DeviceStream *device_;
  char *target_;
  const char *source_;
  size_t bytes_;
  bool to_device_;
};

}  // namespace

uint64_t Runtime::push_zeros(int index, const Tensor &tensor, const Waits &waits) {
  Stream &stream = this->stream(index);
  auto job = std::make_unique<ZeroJob>(stream.device(), tensor.storage->on_device, tensor.range);
  return stream.push_job(std::move(job), "zeros", waits);
}

uint64_t Runtime::push_on_host(int index, int op, Stream::KernelSlot call, Storage *const *storages,
                               const Waits &waits) {
  const OpInfo &info = op_info(op);
  zs_kernel kernel = host_->kernels[op];
  if (!kernel) throw Error{"UNSUPPORTED", text("the %s backend lacks it", host_->name)};
  Stream &stream = this->stream(index);
  auto job = std::make_unique<HostKernelJob>(stream.device(), kernel, info, &pool());
  int count = info.outputs + info.inputs;
  std::copy_n(call.tensors, count, job->tensors);
  std::copy_n(call.scalars, info.scalars, job->scalars);
  for (int i = 0; i < count; i++) job->on_device[i] = storages[i] && storages[i]->on_device;
  return stream.push_job(std::move(job), info.name, waits);
}

void Runtime::recategorize(double handle, int category) {
  Tensor &tensor = memory_.find(handle);
  int64_t integer = static_cast<int64_t>(handle);
  if (memory_.would_move(integer, category)) {
    refuse_in_capture("a move between host and device");
    Memory::Old old = memory_.exchange(integer, category);
    Storage &storage = *tensor.storage;
    int index = serial_ ? 0 : kCopyStream;
    Stream &stream = this->stream(index);
    Waits waits;
    old.hazards.before_read(waits);
    storage.hazards.before_write(waits);
    auto job = std::make_unique<MoveJob>(stream.device(), storage.data, old.data, static_cast<size_t>(storage.bytes),
                                         storage.on_device);
    uint64_t sequence = stream.push_job(std::move(job), "move", waits);
    storage.hazards.did_write(index, sequence);
    old.hazards.did_read(index, sequence);
    memory_.release_old(old);
  }
  memory_.recategorize(integer, category);
}

}  // namespace zs
