#include "runtime.h"

#include <algorithm>
#include <cstring>
#include <thread>

namespace zs {

namespace {

constexpr OpInfo kOps[] = {
#define ZS_OP(name, outputs, inputs, scalars) {#name, outputs, inputs, scalars},
#include "../ops/ops.def"
#undef ZS_OP
};

constexpr bool ops_fit() {
  for (const OpInfo &op : kOps)
    if (op.outputs < 1 || op.outputs + op.inputs > kMaxTensors || op.scalars > kMaxScalars)
      return false;
  return true;
}
static_assert(ops_fit());

constexpr int64_t kLeastWindow = 1 << 20;  // bytes
constexpr int64_t kCopyGrain = 256 << 10;  // bytes; below it more threads do not help
constexpr zs_tensor kAbsent = {nullptr, 0, {}, 0, -1};

// Internal kernels: zeros() of any tensor.
int32_t zero_kernel(zs_call *call) {
  char *data = static_cast<char *>(call->tensors[0].data);
  auto body = [data](int64_t begin, int64_t end) {
    memset(data + begin, 0, static_cast<size_t>(end - begin));
  };
  int64_t bytes = call->tensors[0].count * kDtypeBytes[call->tensors[0].dtype];
  static_cast<ThreadPool *>(call->context)->parallel_for(bytes, kCopyGrain, body);
  return ZS_OK;
}

}  // namespace

const OpInfo &op_info(int op) { return kOps[op]; }

Runtime::Runtime(const zs_backend &backend, const zs_backend *host)
    : backend_(backend), host_(host), memory_(backend_, &group_.progress, [this] { drain(); }) {
  group_.progress.on_device = on_device();
  if (on_device()) group_.clock = std::make_unique<DeviceClock>(backend_, &lost_);
}

Runtime::~Runtime() {
  communicator_.abort({"RANK_LOST", "this rank's runtime has ended"});
  if (capture_) graph_end(true);
  group_.stop.store(true);
  for (Stream *stream : streams_)
    if (stream) stream->stop();
  for (Stream *&stream : streams_) {
    delete stream;
    stream = nullptr;
  }
}

bool Runtime::used() const {
  bool started = std::any_of(streams_, streams_ + kNumStreams, [](Stream *s) { return s; });
  return started || memory_.stats().reserved > 0 || memory_.stats().tensors > 0 || communicator_.created();
}

void Runtime::configure(int threads, bool serial, int64_t memory_limit) {
  bool started = std::any_of(streams_, streams_ + kNumStreams, [](Stream *s) { return s; });
  if (started && (threads != threads_ || serial != serial_))
    throw Error{"ARGUMENT", "threads and serial can only be set before the first operation"};
  threads_ = threads;
  serial_ = serial;
  memory_.set_limit(memory_limit);
}

ThreadPool &Runtime::pool() {
  if (!pool_) {
    int machine = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    pool_ = std::make_unique<ThreadPool>(threads_ > 0 ? threads_ : machine);
  }
  return *pool_;
}

Stream &Runtime::stream(int index) {
  if (!streams_[index]) {
    pool();
    // What others wait for goes first: collectives and copies before the rest of the computation.
    auto device = on_device() ? std::make_unique<DeviceStream>(backend_, index != 0, &lost_) : nullptr;
    streams_[index] = new Stream(index, &group_, streams_, std::move(device), serial_);
  }
  return *streams_[index];
}

void Runtime::drain() {
  for (int s = 0; s < kNumStreams; s++)
    if (streams_[s]) group_.wait(s, streams_[s]->last());
  char error[ZS_ERROR_BYTES];
  if (on_device() && !capture_) backend_.synchronize(error);  // what fails is told at the next read
}

int64_t Runtime::alloc(const double *packet) {
  int dtype = read_index(packet[0], kNumDtypes, "dtype");
  int category = read_index(packet[1], kNumCategories, "category");
  int flags = read_index(packet[2], 4, "flags");
  int64_t handle = memory_.allocate(read_shape(packet + 3), dtype, category, flags & 2);
  if (!(flags & 1)) return handle;
  Tensor &tensor = memory_.find(static_cast<double>(handle));
  Storage &storage = *tensor.storage;
  size_t bytes = static_cast<size_t>(storage.bytes);
  if (bytes == 0) return handle;
  if (!storage.on_device && storage.bytes <= kCopyGrain && !group_.progress.busy(storage.hazards)) {
    memset(storage.data, 0, bytes);
    storage.hazards = Hazards{};
    return handle;
  }
  Waits waits;
  storage.hazards.before_write(waits);
  if (on_device()) {
    storage.hazards.did_write(0, push_zeros(0, tensor, waits));
    return handle;
  }
  Stream &compute = stream(0);
  compute.kernel_slot(1, 0).tensors[0] = tensor.range;
  storage.hazards.did_write(0, compute.push_kernel(zero_kernel, "zeros", &pool(), waits));
  return handle;
}

int64_t Runtime::view(const double *packet) {
  memory_.find(packet[0]);
  if (!(packet[1] >= 0 && packet[1] < 0x1p52))
    throw Error{"ARGUMENT", text("offset %g is not a number of elements", packet[1])};
  int dtype = read_index(packet[2], kNumDtypes, "dtype");
  return memory_.view(static_cast<int64_t>(packet[0]), static_cast<int64_t>(packet[1]), dtype,
                      read_shape(packet + 3));
}

void Runtime::free(const double *packet) {
  memory_.find(packet[0]);
  memory_.free(static_cast<int64_t>(packet[0]));
}

void Runtime::run(const double *packet) { run(packet, false); }

int Runtime::run_live(const double *packet) {
  if (!capture_) throw Error{"ARGUMENT", "live scalars are those of a graph that is being captured; there is none"};
  run(packet, true);
  return static_cast<int>(capture_->calls.size()) - 1;
}

void Runtime::run(const double *packet, bool live) {
  int op = read_index(packet[0], ZS_OP_COUNT, "op");
  int index = serial_ ? 0 : read_index(packet[1], kNumStreams, "stream");
  if (live && index != 0)
    throw Error{"ARGUMENT", text("live scalars are for the compute stream, not for %s", kStreamNames[index])};
  const OpInfo &info = kOps[op];
  zs_kernel kernel = backend_.kernels[op];
  if (!kernel && !host_) throw Error{"UNSUPPORTED", text("the %s backend lacks it", backend_.name)};
  Stream &stream = this->stream(index);
  int num_tensors = info.outputs + info.inputs;
  const double *handles = packet + 2;
  if (handles[0] == 0) throw Error{"ARGUMENT", "the first output is absent"};

  Stream::KernelSlot slot = stream.kernel_slot(num_tensors, info.scalars);
  Storage *storages[kMaxTensors];
  Waits waits;
  bool on_host = false;
  for (int i = 0; i < num_tensors; i++) {
    if (handles[i] == 0) {
      storages[i] = nullptr;
      slot.tensors[i] = kAbsent;
      continue;
    }
    const Tensor &tensor = memory_.find(handles[i]);
    storages[i] = tensor.storage;
    hold_in_capture(tensor.storage);
    slot.tensors[i] = tensor.range;
    on_host |= host_ && tensor.storage->block && !tensor.storage->on_device;
    if (i < info.outputs) tensor.storage->hazards.before_write(waits);
    else tensor.storage->hazards.before_read(waits);
  }
  std::copy_n(handles + num_tensors, info.scalars, slot.scalars);
  uint64_t sequence;
  if (on_host) {
    refuse_in_capture("work on host memory");
    sequence = push_on_host(index, op, slot, storages, waits);
  } else {
    if (!kernel) throw Error{"UNSUPPORTED", text("the %s backend lacks it", backend_.name)};
    if (live) sequence = push_live(index, op, slot, kernel, waits);
    else sequence = stream.push_kernel(kernel, info.name, host_ ? nullptr : pool_.get(), waits);
  }
  for (int i = info.outputs; i < num_tensors; i++)
    if (storages[i]) storages[i]->hazards.did_read(index, sequence);
  for (int i = 0; i < info.outputs; i++)
    if (storages[i]) storages[i]->hazards.did_write(index, sequence);
}

void Runtime::collective(const double *packet) {
  int kind = read_index(packet[0], kNumCollectives, "kind of collective");
  int index = serial_ ? 0 : read_index(packet[2], kNumStreams, "stream");
  Tensor *output = packet[3] == 0 ? nullptr : &memory_.find(packet[3]);
  Tensor *input = packet[4] == 0 ? nullptr : &memory_.find(packet[4]);
  auto job = communicator_.collective(
      static_cast<Collective>(kind), read_index(packet[1], 1 << 30, "group"),
      output ? output->range : kAbsent, input ? input->range : kAbsent, packet[5],
      static_cast<int64_t>(packet[6]), packet[7] != 0,
      CollectivePlace{stream(index).device(), output && output->storage->on_device,
                      input && input->storage->on_device});
  for (Tensor *tensor : {output, input})
    if (tensor) hold_in_capture(tensor->storage);
  Waits waits;
  if (output) output->storage->hazards.before_write(waits);
  if (input) input->storage->hazards.before_read(waits);
  uint64_t sequence = stream(index).push_job(std::move(job), kCollectiveNames[kind], waits);
  stream(index).place_mark();  // others wait for this one alone, though the next may be queued before them
  if (input) input->storage->hazards.did_read(index, sequence);
  if (output) output->storage->hazards.did_write(index, sequence);
}

void Runtime::start_trace(size_t capacity) {
  group_.trace.start(0);
  for (Stream *stream : streams_)
    if (stream) stream->forget_times();
  group_.trace.start(capacity);
}

std::vector<TraceRecord> Runtime::take_trace(uint64_t *dropped) {
  for (Stream *stream : streams_)
    if (stream) stream->collect_times();
  return group_.trace.take(dropped);
}

void Runtime::stream_stats(double *busy_seconds, double *ops) const {
  for (int s = 0; s < kNumStreams; s++) {
    busy_seconds[s] = streams_[s] ? streams_[s]->busy_seconds() : 0;
    ops[s] = streams_[s] ? static_cast<double>(streams_[s]->num_ops()) : 0;
  }
}

std::string Runtime::comm_create(int rank, int world_size, const std::string &job_id,
                                 double timeout) {
  DeviceTransport device;
  if (on_device() && backend_.collectives && world_size > 1) {
    zs_device_info info;
    char error[ZS_ERROR_BYTES] = "";
    if (backend_.device_info(-1, &info, error) != ZS_OK) throw Error{"DEVICE", error};
    device = {&backend_, info.uuid, [this](const CommError &why) { lost_.tell({why.code, why.message}); }};
  }
  std::string facts = communicator_.create(rank, world_size, job_id, timeout, device);
  if (!on_device() || device.backend) memory_.set_arena(communicator_.transport());
  return facts;
}

// Between devices nothing may be under way where a group is made: a queued collective that waits for this call to end
// might be what another rank waits for before it comes to it.
int Runtime::comm_group(const std::vector<int> &ranks) {
  refuse_in_capture("making a group");
  if (on_device()) drain();
  return communicator_.group(ranks);
}

bool Runtime::comm_link(int group, int from, int to) {
  if (on_device()) drain();
  return communicator_.link(group, from, to);
}

// Small ones gain nothing, and share pages with others.
bool Runtime::comm_window(int group, double handle) {
  const Tensor &tensor = memory_.find(handle);
  if (!on_device() || tensor.bytes() < kLeastWindow) return false;
  for (const Window &known : windows_) {
    const Tensor &view = memory_.find(static_cast<double>(known.view));
    if (known.group == group && view.range.data == tensor.range.data && view.bytes() == tensor.bytes()) return true;
  }
  drain();
  void *data = tensor.range.data;
  Shape shape{1, {tensor.range.count}, tensor.range.count};
  int64_t view = memory_.view(static_cast<int64_t>(handle), 0, tensor.range.dtype, shape);
  if (communicator_.window(group, data, static_cast<size_t>(memory_.find(static_cast<double>(view)).bytes()))) {
    windows_.push_back({group, view});
    memory_.find(handle).storage->num_windows++;
    return true;
  }
  memory_.free(view);
  return false;
}

void Runtime::comm_drop_window(int group, double handle) {
  void *data = memory_.find(handle).range.data;
  auto is_it = [&](const Window &window) {
    return window.group == group && memory_.find(static_cast<double>(window.view)).range.data == data;
  };
  auto found = std::find_if(windows_.begin(), windows_.end(), is_it);
  if (found == windows_.end()) return;
  drain();
  communicator_.drop_window(group, data);
  forget(*found);
  windows_.erase(found);
}

void Runtime::forget(const Window &window) {
  memory_.find(static_cast<double>(window.view)).storage->num_windows--;
  memory_.free(window.view);
}

void Runtime::comm_destroy() {
  if (capture_) graph_end(true);
  drain();
  communicator_.destroy();
  for (const Window &window : windows_) forget(window);
  windows_.clear();
  lost_.is.store(false);
  memory_.set_arena(nullptr);
}

}  // namespace zs
