// The device of check.h as a GPU, through the backend's C ABI alone: gpu_runner [FAMILY…] [--small]. ZEROSHARD_CUDA names
// the library. Without a device it says why and ends with 77.
#include "device_gpu.h"

#include <dlfcn.h>

namespace test {

const zs_backend *backend = nullptr;
zs_backend_open_function open_backend = nullptr;
zs_stream stream{};
char error[ZS_ERROR_BYTES] = "";

bool works(int32_t status, const std::string &what) {
  expect(status == ZS_OK, what + ": " + error);
  return status == ZS_OK;
}

int device_open() {
  const char *path = getenv("ZEROSHARD_CUDA") ? getenv("ZEROSHARD_CUDA") : "./build/Release/libzeroshard_cuda13.so";
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return fprintf(stderr, "%s; ZEROSHARD_CUDA names the library\n", dlerror()), 1;
  open_backend = reinterpret_cast<zs_backend_open_function>(dlsym(library, ZS_BACKEND_OPEN));
  if (!open_backend) return fprintf(stderr, "%s: no %s in it\n", path, ZS_BACKEND_OPEN), 1;
  backend = open_backend(ZS_BACKEND_ABI, 0, error, sizeof error);
  if (!backend && strstr(error, "ABI")) return fprintf(stderr, "%s: %s\n", path, error), 1;
  if (!backend) return fprintf(stderr, "no device: %s\n", error), 77;
  if (backend->abi != ZS_BACKEND_ABI || backend->struct_size != sizeof(zs_backend)) return fprintf(stderr, "%s is of another build\n", path), 1;
  if (backend->attach && backend->attach(error) != ZS_OK) return fprintf(stderr, "attach: %s\n", error), 1;
  if (backend->stream_create(0, &stream, error) != ZS_OK) return fprintf(stderr, "stream: %s\n", error), 1;
  return 0;
}

bool device_has(zs_op op) { return backend->kernels[op] != nullptr; }

std::vector<Value> run_device(const Case &c, bool unaligned, bool) {
  static Arena arena;
  arena.clear();
  std::vector<Memory> memory;
  std::vector<zs_tensor> tensors;
  for (const Value &v : c.tensors) {
    memory.emplace_back(arena, v.bytes, unaligned && v.dtype >= 0 ? static_cast<size_t>(size_of(v.dtype)) : 0);
    tensors.push_back(tensor_of(v, v.same_as >= 0 ? memory[static_cast<size_t>(v.same_as)].data() : memory.back().data()));
  }
  zs_call call = call_of(c, tensors, stream.context);
  call.stream = stream.native;
  if (backend->kernels[c.op](&call) != ZS_OK) expect(false, title(c) + ": " + call.error);
  const int32_t status = backend->stream_synchronize(&stream, error);
  if (c.told == kNothing) works(status, title(c));
  else expect(status != ZS_OK && strstr(error, std::to_string(c.told).c_str()), title(c) + ": is not told of, but: " + error);
  std::vector<Value> values = c.tensors;
  for (size_t i = 0; i < values.size(); i++) {
    if (values[i].dtype < 0) continue;
    if (!memory[i].read(values[i].bytes)) expect(false, title(c) + ": writes beside tensor " + std::to_string(i));
    if (values[i].same_as >= 0) values[i].bytes = values[static_cast<size_t>(values[i].same_as)].bytes;
  }
  return values;
}

}  // namespace test
