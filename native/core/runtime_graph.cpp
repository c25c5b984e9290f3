// Graphs of a device. While one is captured the streams' threads launch as ever, and the device records instead of
// working: all streams fork from the compute stream and join it at the end. Everything is idle before, so that no
// wait goes to what the graph does not have. A launch is one task of the compute stream, after all that the other
// streams have and before all that they get: the graph works on memory of theirs, too.
#include <algorithm>
#include <cstring>

#include "graph.h"
#include "runtime.h"

namespace zs {

namespace {

void check(int32_t status, const char *error) {
  if (status != ZS_OK) throw Error{status_code(status), error[0] ? error : "the device gave no reason"};
}

class BeginJob : public Job {
 public:
  BeginJob(DeviceStream *device, const zs_graphs &table) : device_(device), table_(table) {}
  void run() override {
    char error[ZS_ERROR_BYTES] = "";
    check(table_.begin(device_->own(), error), error);
    device_->capture(true);
  }

 private:
  DeviceStream *device_;
  const zs_graphs &table_;
};

// Its waits bring the stream into the capture, or out of it.
class ForkJob : public Job {
 public:
  ForkJob(DeviceStream *device, bool in) : device_(device), in_(in) {}
  void run() override { device_->capture(in_); }
  void drop(const std::shared_ptr<Failure> &) override { device_->capture(in_); }
  bool is_work() const override { return false; }

 private:
  DeviceStream *device_;
  bool in_;
};

// Also where the streams are poisoned: a capture must end.
class EndJob : public Job {
 public:
  EndJob(DeviceStream *device, Graph *graph, std::shared_ptr<Failure> *failure)
      : device_(device), graph_(graph), failure_(failure) {}
  void run() override {
    if (!device_->capturing()) return;
    device_->capture(false);
    char error[ZS_ERROR_BYTES] = "";
    check(graph_->table.end(device_->own(), &graph_->native, error), error);
  }
  void drop(const std::shared_ptr<Failure> &failure) override {
    *failure_ = failure;
    try {
      run();
    } catch (const Error &) {  // the failure is the reason
    }
  }
  bool is_work() const override { return false; }

 private:
  DeviceStream *device_;
  Graph *graph_;
  std::shared_ptr<Failure> *failure_;
};

class ConstantJob : public Job {
 public:
  ConstantJob(DeviceStream *device, void *target, const void *kept, size_t bytes)
      : device_(device), target_(target), kept_(kept), bytes_(bytes) {}
  void run() override { device_->copy(target_, kept_, bytes_, ZS_TO_DEVICE_PINNED); }

 private:
  DeviceStream *device_;
  void *target_;
  const void *kept_;
  size_t bytes_;
};

class LiveJob : public Job {
 public:
  LiveJob(DeviceStream *device, const zs_graphs &table, LiveCall *live, const double *scalars)
      : device_(device), table_(table), live_(live), scalars_(scalars, scalars + live->num_scalars) {}
  void run() override {
    zs_call call = {live_->tensors.data(), scalars_.data(), device_->stream().native, device_->stream().context, ""};
    int32_t status = table_.record(device_->own(), live_->kernel, &call, &live_->place);
    if (status != ZS_OK) throw Error{status_code(status), call.error[0] ? call.error : "the kernel failed"};
  }

 private:
  DeviceStream *device_;
  const zs_graphs &table_;
  LiveCall *live_;
  std::vector<double> scalars_;
};

class LaunchJob : public Job {
 public:
  LaunchJob(DeviceStream *device, std::shared_ptr<Graph> graph, std::vector<LiveScalars> changes)
      : device_(device), graph_(std::move(graph)), changes_(std::move(changes)) {}
  void run() override {
    for (const LiveScalars &change : changes_) {
      const LiveCall &live = *change.call;
      zs_call call = {live.tensors.data(), change.scalars.data(), device_->stream().native, device_->stream().context, ""};
      int32_t status = graph_->table.set(graph_->native, live.place, live.kernel, &call);
      if (status != ZS_OK) throw Error{status_code(status), text("[%s] %s", live.name.c_str(), call.error)};
    }
    char error[ZS_ERROR_BYTES] = "";
    check(graph_->table.launch(graph_->native, device_->own(), error), error);
  }

 private:
  DeviceStream *device_;
  std::shared_ptr<Graph> graph_;
  std::vector<LiveScalars> changes_;
};

class BarrierJob : public Job {
 public:
  void run() override {}
  bool is_work() const override { return false; }
};

}  // namespace

Graph::~Graph() {
  for (const auto &call : calls)
    if (call->place) table.forget(call->place);
  if (native) table.destroy(native);
  for (auto [data, bytes] : constants) backend.host_release(data, bytes);
}

void *Graph::keep(const void *values, size_t bytes) {
  void *data = backend.host_allocate(bytes);
  if (!data) throw Error{"OUT_OF_MEMORY", text("no pinned host memory of %zu bytes", bytes)};
  constants.emplace_back(data, bytes);
  memcpy(data, values, bytes);
  return data;
}

void Runtime::graph_begin() {
  if (!backend_.graphs)
    throw Error{"UNSUPPORTED", text("the %s has no graphs; they are a CUDA device's", backend_.name)};
  if (capture_) throw Error{"ARGUMENT", "a graph is being captured already; end that first"};
  for (int s = 0; s <= (serial_ ? 0 : kCopyStream); s++) stream(s);
  synchronize_now(-1);
  forget_past();
  capture_ = std::make_unique<Graph>(backend_);
  memory_.open_pool();
  group_.capture.take_error();
  group_.capture.on.store(true);
  Waits begun;
  begun.add(0, stream(0).push_job(std::make_unique<BeginJob>(stream(0).device(), *backend_.graphs), "begin", {}));
  fork(begun, true);
}

void Runtime::forget_past() {
  for (Stream *stream : streams_)
    if (stream) stream->forget_past();
}

void Runtime::fork(const Waits &waits, bool in) {
  for (int s = 1; s < kNumStreams; s++)
    if (streams_[s]) streams_[s]->push_job(std::make_unique<ForkJob>(streams_[s]->device(), in), "fork", waits);
}

int Runtime::graph_end(bool give_up) {
  if (!capture_) throw Error{"ARGUMENT", "no graph is being captured; begin one first"};
  std::shared_ptr<Graph> graph = std::move(capture_);
  std::shared_ptr<Failure> failure;
  Waits joined, ended;
  for (int s = 1; s < kNumStreams; s++)
    if (streams_[s]) joined.add(s, streams_[s]->last());
  stream(0).forget_waits();  // each of them has to join, whatever was waited for before
  auto job = std::make_unique<EndJob>(stream(0).device(), graph.get(), &failure);
  ended.add(0, stream(0).push_job(std::move(job), "end", joined));
  fork(ended, false);
  for (int s = 0; s < kNumStreams; s++)
    if (streams_[s]) group_.wait(s, streams_[s]->last());
  group_.capture.on.store(false);
  std::unique_ptr<Error> error = group_.capture.take_error();
  if (failure) told(*failure);
  if (failure && !error) error = std::make_unique<Error>(failure->error);
  forget_past();
  graph->pool = memory_.close_pool();
  if (error || give_up) {
    drop(*graph);
    if (give_up) return -1;
    throw *error;
  }
  graphs_.push_back(std::move(graph));
  return static_cast<int>(graphs_.size()) - 1;
}

// On the owner's thread, where something is asked for that cannot be recorded.
void Runtime::refuse_in_capture(const char *what) {
  if (!capture_) return;
  Error error{"UNSUPPORTED", text("%s cannot be part of a captured graph", what)};
  group_.capture.fail(error);
  throw error;
}

uint64_t Runtime::push_constant(int index, const Tensor &tensor, const void *source, size_t bytes, const Waits &waits) {
  Stream &stream = this->stream(index);
  void *kept = capture_->keep(source, bytes);
  hold_in_capture(tensor.storage);
  auto job = std::make_unique<ConstantJob>(stream.device(), tensor.range.data, kept, bytes);
  return stream.push_job(std::move(job), "write", waits);
}

void Runtime::hold_in_capture(Storage *storage) {
  if (!capture_ || !storage) return;
  std::vector<Storage *> &held = capture_->held;
  if (storage->num_graphs > 0 && std::find(held.begin(), held.end(), storage) != held.end()) return;
  if (memory_.hold(storage)) held.push_back(storage);
}

uint64_t Runtime::push_live(int index, int op, Stream::KernelSlot call, zs_kernel kernel, const Waits &waits) {
  const OpInfo &info = op_info(op);
  auto live = std::make_unique<LiveCall>();
  live->kernel = kernel;
  live->name = info.name;
  live->num_scalars = info.scalars;
  live->tensors.assign(call.tensors, call.tensors + info.outputs + info.inputs);
  Stream &stream = this->stream(index);
  auto job = std::make_unique<LiveJob>(stream.device(), *backend_.graphs, live.get(), call.scalars);
  capture_->calls.push_back(std::move(live));
  return stream.push_job(std::move(job), info.name, waits);
}

std::shared_ptr<Graph> &Runtime::find_graph(double id) {
  size_t index = static_cast<size_t>(id);
  if (!(id >= 0) || index >= graphs_.size() || !graphs_[index])
    throw Error{"ARGUMENT", text("there is no graph %g (any more)", id)};
  return graphs_[index];
}

void Runtime::graph_launch(double id, const double *changes, size_t count) {
  std::shared_ptr<Graph> graph = find_graph(id);
  refuse_in_capture("the launch of another graph");
  std::vector<LiveScalars> parsed;
  for (size_t at = 0; at < count;) {
    int index = read_index(changes[at++], static_cast<int>(graph->calls.size()), "call of the graph");
    const LiveCall &call = *graph->calls[static_cast<size_t>(index)];
    size_t num_scalars = static_cast<size_t>(call.num_scalars);
    if (num_scalars > count - at)
      throw Error{"ARGUMENT", text("%s takes %zu scalars, %zu are left", call.name.c_str(), num_scalars, count - at)};
    parsed.push_back({&call, {changes + at, changes + at + num_scalars}});
    at += num_scalars;
  }
  memory_.count_peak(graph->pool);
  Waits all;
  for (int s = 1; s < kNumStreams; s++)
    if (streams_[s] && streams_[s]->last() > 0) all.add(s, streams_[s]->last());
  auto job = std::make_unique<LaunchJob>(stream(0).device(), std::move(graph), std::move(parsed));
  Waits launched;
  launched.add(0, stream(0).push_job(std::move(job), "graph", all));
  for (int s = 1; s < kNumStreams; s++)
    if (streams_[s]) streams_[s]->push_job(std::make_unique<BarrierJob>(), "graph", launched);
}

void Runtime::graph_drop(double id) {
  std::shared_ptr<Graph> &graph = find_graph(id);
  refuse_in_capture("dropping a graph");
  drain();
  drop(*graph);
  graph.reset();
}

void Runtime::drop(Graph &graph) {
  for (Storage *storage : graph.held) memory_.let_go(storage);
  graph.held.clear();
  memory_.drop_pool(graph.pool);
}

}  // namespace zs
