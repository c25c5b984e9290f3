// One environment's native world: tensors, streams, collectives. Queues work, computing the waits
// between streams from the hazards of the storages. All methods are for one thread (JavaScript's);
// they throw Error.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "communicator.h"
#include "graph.h"
#include "memory.h"
#include "stream.h"
#include "threadpool.h"

namespace zs {

struct OpInfo {
  const char *name;
  int outputs, inputs, scalars;
};
inline constexpr int kMaxTensors = 12;
inline constexpr int kMaxScalars = 32;
const OpInfo &op_info(int op);

class SwapFile;
struct SwapOptions;

class Runtime {
 public:
  // `host`: kernels for what lies in host memory, where `backend` is a device's. Backends outlive the runtime.
  explicit Runtime(const zs_backend &backend, const zs_backend *host = nullptr);
  ~Runtime();  // aborts collectives, drops what is queued, frees all

  // threads 0: as many as the machine has. Threads and serial only before the first operation.
  void configure(int threads, bool serial, int64_t memory_limit);
  bool used() const;  // whether there has been an operation, a tensor or a process group
  const zs_backend &backend() const { return backend_; }

  // The hot calls, on a packet as lib/binding/native.ts has it.
  int64_t alloc(const double *packet);
  int64_t view(const double *packet);
  void free(const double *packet);
  void run(const double *packet);
  int run_live(const double *packet);  // in a capture: scalars that graph_launch() may change → number of the call
  void collective(const double *packet);
  void transfer(const double *packet);  // to or from a swap file

  // `constant`: a graph may write the same at each launch.
  void write(double handle, const void *source, size_t bytes, int stream, bool constant = false);
  // `done` is called once, on another thread, with the failure or nullptr; not at all if the
  // runtime ends first. The failure must then be handed to told(), on this thread.
  using Done = std::function<void(std::shared_ptr<Failure>)>;
  void read(double handle, void *target, size_t bytes, int stream, Done done);
  int synchronize(int stream, Done done);  // -1: all; → how often `done` will be called
  void read_now(double handle, void *target, size_t bytes, int stream);
  void synchronize_now(int stream);
  void told(Failure &failure);

  void recategorize(double handle, int category);

  // What is queued from graph_begin() to graph_end() is not done but captured, as a graph; both wait for the streams.
  // graph_end() throws the first reason why it could not all be captured; then nothing of it has happened, and
  // the streams go on. `give_up`: says nothing and gives no graph.
  void graph_begin();
  int graph_end(bool give_up);
  // `changes`: calls with other scalars than before, as [call, scalars…] one after another.
  void graph_launch(double id, const double *changes, size_t count);
  void graph_drop(double id);  // waits for the device

  Memory &memory() { return memory_; }
  Trace &trace() { return group_.trace; }
  void start_trace(size_t capacity);                       // as Trace::start
  std::vector<TraceRecord> take_trace(uint64_t *dropped);  // with what a device has done by now
  void stream_stats(double *busy_seconds, double *ops) const;

  int open_swap(const std::string &path, int64_t bytes, const SwapOptions &options);
  std::shared_ptr<SwapFile> swap(double id) const;
  void close_swap(double id);

  std::string comm_create(int rank, int world_size, const std::string &job_id, double timeout);
  int comm_group(const std::vector<int> &ranks);
  bool comm_link(int group, int from, int to);
  bool comm_window(int group, double handle);
  void comm_drop_window(int group, double handle);
  Communicator &communicator() { return communicator_; }
  void comm_destroy();

 private:
  struct Window {
    int group;
    int64_t view;  // keeps the memory
  };
  Stream &stream(int index);  // starts it at first use
  ThreadPool &pool();
  void drain();
  void check_bytes(const Tensor &tensor, size_t bytes) const;
  [[noreturn]] void rethrow(Failure &failure);
  bool on_device() const { return !backend_.host_memory; }
  uint64_t push_zeros(int stream, const Tensor &tensor, const Waits &waits);
  void run(const double *packet, bool live);
  uint64_t push_live(int stream, int op, Stream::KernelSlot call, zs_kernel kernel, const Waits &waits);
  uint64_t push_constant(int stream, const Tensor &tensor, const void *source, size_t bytes, const Waits &waits);
  void refuse_in_capture(const char *what);
  void hold_in_capture(Storage *storage);
  void forget_past();
  void fork(const Waits &waits, bool in);
  std::shared_ptr<Graph> &find_graph(double id);
  void drop(Graph &graph);
  void forget(const Window &window);
  uint64_t push_on_host(int stream, int op, Stream::KernelSlot call, Storage *const *storages,
                        const Waits &waits);

  const zs_backend backend_;
  const zs_backend *const host_;
  StreamGroup group_;
  Lost lost_;
  Communicator communicator_;
  std::vector<Window> windows_;
  Memory memory_;
  int threads_ = 0;
  bool serial_ = false;
  std::unique_ptr<ThreadPool> pool_;
  std::vector<std::shared_ptr<SwapFile>> swaps_;  // by id; nullptr: closed
  std::shared_ptr<Graph> capture_;                // the one under way
  std::vector<std::shared_ptr<Graph>> graphs_;    // by id; nullptr: dropped
  Stream *streams_[kNumStreams] = {};  // owned; streams hold a pointer to this array
};

}  // namespace zs
