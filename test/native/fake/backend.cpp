// libfake_cuda.so: a CUDA backend for tests of the engine, without a GPU. Its device is the faked one, its kernels are
// the CPU's, run late and on memory that the host cannot touch; graphs are captured and launched. Ranks that are threads
// of one process exchange what lies on their devices (sums of f32 and i64). ZEROSHARD_CUDA names it; ZEROSHARD_FAKE_LOG a
// file that gets a word for each exchange, and for each window.
#include <cstring>

#include "../../../native/backend/cpu/backend.h"
#include "../../../native/core/dtype.h"
#include "../../../native/core/threadpool.h"
#include "../fake_collectives.h"
#include "../fake_graphs.h"

namespace zs::fake {

namespace {

constexpr struct {
  const char *name;
  int tensors, scalars;
} kOps[] = {
#define ZS_OP(name, outputs, inputs, scalars) {#name, outputs + inputs, scalars},
#include "../../../native/ops/ops.def"
#undef ZS_OP
};

ThreadPool &pool() {
  static ThreadPool made(1);
  return made;
}

void run_now(int op, FakeStream *stream, std::vector<zs_tensor> tensors, const std::vector<double> &scalars) {
  for (zs_tensor &tensor : tensors)
    if (tensor.data && tensor.count > 0)
      tensor.data = real(tensor.data, static_cast<size_t>(tensor.count * kDtypeBytes[tensor.dtype]));
  zs_call call = {tensors.data(), scalars.data(), nullptr, &pool(), ""};
  int32_t status = cpu::backend().kernels[op](&call);
  if (status == ZS_OK) return;
  std::lock_guard guard(stream->lock);
  stream->status = status;
  stream->error = std::string("[") + kOps[op].name + "] " + call.error;
}

template <int op>
int32_t launch(zs_call *call) {
  std::vector<zs_tensor> tensors(call->tensors, call->tensors + kOps[op].tensors);
  std::vector<double> scalars(call->scalars, call->scalars + kOps[op].scalars);
  FakeStream *stream = static_cast<FakeStream *>(call->stream);
  queue(stream, [=] { run_now(op, stream, tensors, scalars); });
  return ZS_OK;
}

constexpr zs_kernel kKernels[] = {
#define ZS_OP(name, outputs, inputs, scalars) launch<ZS_OP_##name>,
#include "../../../native/ops/ops.def"
#undef ZS_OP
};

int32_t device_info(int32_t index, zs_device_info *info, char *error) {
  if (index > 0) return tell(error, ZS_BAD_ARGUMENT, "there is one device");
  *info = {};
  strcpy(info->name, "faked");
  strcpy(info->uuid, "faked");
  info->capability = 90;
  return ZS_OK;
}

int32_t library_info(int32_t, zs_library_info *) { return ZS_BAD_ARGUMENT; }

void note(const char *word) {
  static std::mutex lock;
  std::lock_guard guard(lock);
  const char *path = getenv("ZEROSHARD_FAKE_LOG");
  FILE *file = path ? fopen(path, "a") : nullptr;
  if (!file) return;
  fprintf(file, "%s\n", word);
  fclose(file);
}

int32_t noted_run(void *communicator, int32_t size, const zs_exchange *exchange, const zs_stream *stream, char *error) {
  constexpr const char *names[] = {"barrier",   "allReduce", "reduceScatter", "allGather",
                                   "broadcast", "allToAll",  "send",          "recv"};
  note(names[exchange->kind]);
  return comm_run(communicator, size, exchange, stream, error);
}

int32_t noted_add(void *communicator, void *data, size_t bytes, int32_t symmetric, void **handle, char *error) {
  if (symmetric) note("window");
  return comm_add_memory(communicator, data, bytes, symmetric, handle, error);
}

void noted_drop(void *communicator, void *handle, int32_t symmetric) {
  if (symmetric) note("dropped");
  comm_drop_memory(communicator, handle, symmetric);
}

zs_collectives make_collectives() {
  zs_collectives made = fake_collectives;
  made.run = noted_run;
  made.add_memory = noted_add;
  made.drop_memory = noted_drop;
  return made;
}

zs_backend make_table() {
  static const zs_collectives collectives = make_collectives();
  zs_backend made = table(kKernels);
  made.name = "cuda";
  made.device_info = device_info;
  made.library_info = library_info;
  made.graphs = &graphs;
  made.collectives = &collectives;
  device.max_delay_microseconds = 20;
  return made;
}

}  // namespace

}  // namespace zs::fake

extern "C" __attribute__((visibility("default"))) const zs_backend *zs_backend_open(uint32_t abi, int32_t, char *error,
                                                                                    size_t error_bytes) {
  static const zs_backend made = zs::fake::make_table();
  if (abi == ZS_BACKEND_ABI) return &made;
  snprintf(error, error_bytes, "the fake has ABI %d, the core %u", ZS_BACKEND_ABI, abi);
  return nullptr;
}
