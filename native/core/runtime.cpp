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

class WriteJob : public Job {
 public:
  WriteJob(char *target, const void *source, size_t bytes)
      : target_(target), staged_(new char[bytes]), bytes_(bytes) {
    memcpy(staged_.get(), source, bytes);
  }
  void run() override { memcpy(target_, staged_.get(), bytes_); }

 private:
  char *target_;
  std::unique_ptr<char[]> staged_;
  size_t bytes_;
};

// Copies (nothing, for a synchronisation), then tells.
class ReadJob : public Job {
 public:
  ReadJob(void *target, const void *source, size_t bytes, Runtime::Done done)
      : target_(target), source_(source), bytes_(bytes), done_(std::move(done)) {}
  void run() override {
    if (bytes_ > 0) memcpy(target_, source_, bytes_);
    done_(nullptr);
  }
  void drop(const std::shared_ptr<Failure> &failure) override {
    if (failure) done_(failure);
  }
  bool is_work() const override { return bytes_ > 0; }

 private:
  void *target_;
  const void *source_;
  size_t bytes_;
  Runtime::Done done_;
};

}  // namespace

const OpInfo &op_info(int op) { return kOps[op]; }

Runtime::Runtime(const zs_backend &backend)
    : backend_(backend), memory_(backend_, &group_.progress, [this] { drain(); }) {}

Runtime::~Runtime() {
  communicator_.abort({"RANK_LOST", "this rank's runtime has ended"});
  group_.stop.store(true);
  for (Stream *stream : streams_)
    if (stream) stream->stop();
  for (Stream *&stream : streams_) {
    delete stream;
    stream = nullptr;
  }
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
    streams_[index] = new Stream(index, &group_, streams_);
  }
  return *streams_[index];
}

void Runtime::drain() {
  for (int s = 0; s < kNumStreams; s++)
    if (streams_[s]) group_.wait(s, streams_[s]->last());
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
  if (storage.bytes <= kCopyGrain && !group_.progress.busy(storage.hazards)) {
    memset(storage.data, 0, bytes);
    storage.hazards = Hazards{};
    return handle;
  }
  Stream &compute = stream(0);
  compute.kernel_slot(1, 0).tensors[0] = tensor.range;
  Waits waits;
  storage.hazards.before_write(waits);
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

void Runtime::run(const double *packet) {
  int op = read_index(packet[0], ZS_OP_COUNT, "op");
  int index = serial_ ? 0 : read_index(packet[1], kNumStreams, "stream");
  const OpInfo &info = kOps[op];
  zs_kernel kernel = backend_.kernels[op];
  if (!kernel) throw Error{"UNSUPPORTED", text("the %s backend lacks it", backend_.name)};
  Stream &stream = this->stream(index);
  int num_tensors = info.outputs + info.inputs;
  const double *handles = packet + 2;
  if (handles[0] == 0) throw Error{"ARGUMENT", "the first output is absent"};

  Stream::KernelSlot slot = stream.kernel_slot(num_tensors, info.scalars);
  Storage *storages[kMaxTensors];
  Waits waits;
  for (int i = 0; i < num_tensors; i++) {
    if (handles[i] == 0) {
      storages[i] = nullptr;
      slot.tensors[i] = kAbsent;
      continue;
    }
    const Tensor &tensor = memory_.find(handles[i]);
    storages[i] = tensor.storage;
    slot.tensors[i] = tensor.range;
    if (i < info.outputs) tensor.storage->hazards.before_write(waits);
    else tensor.storage->hazards.before_read(waits);
  }
  std::copy_n(handles + num_tensors, info.scalars, slot.scalars);
  uint64_t sequence = stream.push_kernel(kernel, info.name, pool_.get(), waits);
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
      static_cast<int64_t>(packet[6]), packet[7] != 0);
  Waits waits;
  if (output) output->storage->hazards.before_write(waits);
  if (input) input->storage->hazards.before_read(waits);
  uint64_t sequence = stream(index).push_job(std::move(job), kCollectiveNames[kind], waits);
  if (input) input->storage->hazards.did_read(index, sequence);
  if (output) output->storage->hazards.did_write(index, sequence);
}

void Runtime::check_bytes(const Tensor &tensor, size_t bytes) const {
  if (static_cast<size_t>(tensor.bytes()) != bytes)
    throw Error{"SHAPE", text("the array has %zu bytes, the tensor %lld", bytes,
                              static_cast<long long>(tensor.bytes()))};
}

void Runtime::write(double handle, const void *source, size_t bytes, int index) {
  Tensor &tensor = memory_.find(handle);
  check_bytes(tensor, bytes);
  if (bytes == 0) return;
  if (serial_) index = 0;
  Hazards &hazards = tensor.storage->hazards;
  if (!group_.progress.busy(hazards)) {
    // Hazards stay: what failed to write another part of this storage is still to be found out.
    memcpy(tensor.range.data, source, bytes);
    return;
  }
  Waits waits;
  hazards.before_write(waits);
  auto job = std::make_unique<WriteJob>(static_cast<char *>(tensor.range.data), source, bytes);
  hazards.did_write(index, stream(index).push_job(std::move(job), "write", waits));
}

void Runtime::read(double handle, void *target, size_t bytes, int index, Done done) {
  Tensor &tensor = memory_.find(handle);
  check_bytes(tensor, bytes);
  if (serial_) index = 0;
  Waits waits;
  tensor.storage->hazards.before_read(waits);
  auto job = std::make_unique<ReadJob>(target, tensor.range.data, bytes, std::move(done));
  uint64_t sequence = stream(index).push_job(std::move(job), "read", waits);
  tensor.storage->hazards.did_read(index, sequence);
}

int Runtime::synchronize(int index, Done done) {
  if (serial_) index = 0;
  int count = 0;
  for (int s = 0; s < kNumStreams; s++) {
    if (index >= 0 ? s != index : !streams_[s] && s != 0) continue;
    stream(s).push_job(std::make_unique<ReadJob>(nullptr, nullptr, 0, done), "synchronize", {});
    count++;
  }
  return count;
}

void Runtime::read_now(double handle, void *target, size_t bytes, int index) {
  std::shared_ptr<Failure> failure;
  read(handle, target, bytes, index,
       [&failure](std::shared_ptr<Failure> found) { failure = std::move(found); });
  if (serial_) index = 0;
  group_.wait(index, streams_[index]->last());
  if (failure) rethrow(*failure);
}

void Runtime::synchronize_now(int index) {
  std::shared_ptr<Failure> failures[kNumStreams];
  if (serial_) index = 0;
  for (int s = 0; s < kNumStreams; s++) {
    if (index >= 0 ? s != index : !streams_[s]) continue;
    synchronize(s, [&failures, s](std::shared_ptr<Failure> found) { failures[s] = found; });
  }
  for (int s = 0; s < kNumStreams; s++)
    if ((index < 0 || s == index) && streams_[s]) group_.wait(s, streams_[s]->last());
  Failure *first = nullptr;
  for (auto &failure : failures) {
    if (!failure) continue;
    if (!first) first = failure.get();
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

void Runtime::stream_stats(double *busy_seconds, double *ops) const {
  for (int s = 0; s < kNumStreams; s++) {
    busy_seconds[s] = streams_[s] ? streams_[s]->busy_seconds() : 0;
    ops[s] = streams_[s] ? static_cast<double>(streams_[s]->num_ops()) : 0;
  }
}

std::string Runtime::comm_create(int rank, int world_size, const std::string &job_id,
                                 double timeout) {
  std::string facts = communicator_.create(rank, world_size, job_id, timeout);
  memory_.set_arena(communicator_.transport());
  return facts;
}

void Runtime::comm_destroy() {
  drain();
  communicator_.destroy();
  memory_.set_arena(nullptr);
}

}  // namespace zs
