// What a runtime on a device does beside launching kernels: operations on host memory (offloaded states, with
// the device's tensors copied to and fro), zeros, moving a storage to host memory or back.
#include <algorithm>
#include <cstring>

#include "pieces.h"
#include "runtime.h"

namespace zs {

namespace {

constexpr int64_t kAlignElements = 1024;
constexpr size_t kWhole = 256;  // of a slot, for a tensor of one element

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

// By elements, of tensors of one count, or of a single element: any cut gives the same bits.
bool is_elementwise(int op) {
  switch (op) {
    case ZS_OP_cast:
    case ZS_OP_adamw:
    case ZS_OP_sgd:
    case ZS_OP_adagrad:
    case ZS_OP_lion:
    case ZS_OP_lamb:
    case ZS_OP_muon:
    case ZS_OP_apply_update: return true;
    default: return false;
  }
}

// A kernel of the CPU. What it writes is copied to it, too: it may add to it, or leave parts of it. The optimizers' go
// in pieces, so that the copies of one run beside the arithmetic of another.
class HostKernelJob : public Job {
 public:
  HostKernelJob(DeviceStream *device, int op, zs_kernel kernel, ThreadPool *pool)
      : device_(device), op_(op), kernel_(kernel), info_(op_info(op)), pool_(pool) {}
  zs_tensor tensors[kMaxTensors];
  double scalars[kMaxScalars];
  bool on_device[kMaxTensors];

  void run() override {
    if (is_elementwise(op_) && fits_cut()) return run_cut();
    Staging staging(device_);
    for (int i = 0; i < count(); i++)
      staging.add(tensors[i].data, bytes_of(tensors[i]), on_device[i],
                  i < info_.outputs ? Staging::in_out : Staging::in);
    staging.fetch();
    for (int i = 0; i < count(); i++) tensors[i].data = staging.at(i);
    call(tensors);
    staging.store();
  }
  bool settles() const override { return true; }

 private:
  int count() const { return info_.outputs + info_.inputs; }
  void call(const zs_tensor *given) const {
    zs_call call = {given, scalars, nullptr, pool_, ""};
    int32_t status = kernel_(&call);
    if (status != ZS_OK) throw Error{status_code(status), call.error[0] ? call.error : "the kernel failed"};
  }
  bool is_whole(const zs_tensor &range) const { return range.count != tensors[0].count; }  // in every piece
  bool fits_cut() const {
    for (int i = 0; i < count(); i++)
      if (tensors[i].data && is_whole(tensors[i]) && (tensors[i].count != 1 || i < info_.outputs)) return false;
    return tensors[0].count > 0;
  }

  void run_cut() {
    size_t per_element = 0, whole = 0, offsets[kMaxTensors] = {};
    for (int i = 0; i < count(); i++) {
      if (!on_device[i] || !tensors[i].data) continue;
      if (is_whole(tensors[i])) whole += kWhole;
      else per_element += static_cast<size_t>(kDtypeBytes[tensors[i].dtype]);
    }
    const int64_t all = tensors[0].count;
    int64_t length = all;
    if (per_element > 0)
      length = std::min(all, static_cast<int64_t>(kPieceBytes / per_element) / kAlignElements * kAlignElements);
    size_t slot = 0;
    for (int i = 0; i < count(); i++) {
      if (!on_device[i] || !tensors[i].data) continue;
      offsets[i] = slot;
      slot += is_whole(tensors[i]) ? kWhole : static_cast<size_t>(length * kDtypeBytes[tensors[i].dtype]);
    }
    auto part = [&](int i, int64_t piece) {  // of tensor i
      zs_tensor range = tensors[i];
      if (!range.data || is_whole(range)) return range;
      range.data = static_cast<char *>(range.data) + piece * length * kDtypeBytes[range.dtype];
      range.count = range.dims[0] = std::min(length, all - piece * length);
      range.ndim = 1;
      return range;
    };
    auto copies = [&](int64_t piece) {
      PieceCopies made;
      for (int i = 0; i < count(); i++) {
        zs_tensor range = part(i, piece);
        if (!on_device[i] || !range.data) continue;
        PieceRange copy{static_cast<char *>(range.data), bytes_of(range), offsets[i], true};
        made.down.push_back(copy);
        if (i < info_.outputs) made.up.push_back(copy);
      }
      return made;
    };
    auto work = [&](int64_t piece, char *slots) {
      zs_tensor parts[kMaxTensors];
      for (int i = 0; i < count(); i++) {
        parts[i] = part(i, piece);
        if (on_device[i] && parts[i].data) parts[i].data = slots + offsets[i];
      }
      call(parts);
    };
    run_in_pieces(*device_, slot, (all + length - 1) / length, copies, work);
  }

  DeviceStream *device_;
  const int op_;
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
  auto job = std::make_unique<HostKernelJob>(stream.device(), op, kernel, &pool());
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
