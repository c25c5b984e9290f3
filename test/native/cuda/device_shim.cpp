// The device of check.h as the shim: CUDA's sources as fibers, on memory between unmapped pages.
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../../native/backend/cuda/context.h"
#include "check.h"
#include "shim/fibers.h"
#define ZS_CUDA_KERNEL __attribute__((weak))
#include "../../../native/backend/cuda/kernels.h"

namespace test {
namespace {

const zs_kernel kernels[] = {
#define ZS_OP(name, outputs, inputs, scalars) zs::cuda::name,
#include "../../../native/ops/ops.def"
#undef ZS_OP
};
char running[200] = "";

void on_fault(int) {
  const char text[] = "FAILED: touches memory outside a tensor: ";
  ssize_t ignored = write(STDOUT_FILENO, text, sizeof text - 1);
  ignored = write(STDOUT_FILENO, running, strlen(running));
  ignored = write(STDOUT_FILENO, "\n", 1);
  (void)ignored;
  _exit(1);
}

// Memory between two unmapped pages.
class Guarded {
 public:
  Guarded(const std::vector<char> &bytes, bool at_end, size_t align) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    room_ = (bytes.size() + page) / page * page;
    pages_ = static_cast<char *>(mmap(nullptr, room_ + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages_ == MAP_FAILED) abort();
    mprotect(pages_, page, PROT_NONE);
    mprotect(pages_ + page + room_, page, PROT_NONE);
    inner_ = pages_ + page;
    memset(inner_, kFill, room_);
    offset_ = at_end ? (room_ - bytes.size()) / align * align : 0;
    size_ = bytes.size();
    if (size_ > 0) memcpy(inner_ + offset_, bytes.data(), size_);
  }
  ~Guarded() { munmap(pages_, room_ + 2 * static_cast<size_t>(sysconf(_SC_PAGESIZE))); }
  Guarded(const Guarded &) = delete;
  char *data() const { return inner_ + offset_; }
  bool intact_around() const {
    for (size_t i = 0; i < room_; i++)
      if ((i < offset_ || i >= offset_ + size_) && inner_[i] != kFill) return false;
    return true;
  }

 private:
  static constexpr char kFill = 0x5b;
  char *pages_, *inner_;
  size_t room_, offset_, size_;
};

zs::cuda::Report report;
void *workspace(zs::cuda::Context *, size_t bytes) {
  static std::vector<char> junk(1);
  static Guarded *memory = nullptr;
  delete memory;
  junk.assign((bytes + 15) / 16 * 16, static_cast<char>(0xff));
  memory = new Guarded(junk, true, 16);
  return memory->data();
}

}  // namespace

int device_open() {
  signal(SIGSEGV, on_fault);
  signal(SIGBUS, on_fault);
  return 0;
}
bool device_has(zs_op op) { return kernels[op] != nullptr; }
void frame() {}
void figures(bool) {}

std::vector<Value> run_device(const Case &c, bool at_end, bool backward) {
  static zs::cuda::Context context{0, 3, 90, 227 * 1024, 50 << 20, &report, workspace, nullptr};
  snprintf(running, sizeof running, "%s", title(c).c_str());
  std::vector<Guarded *> memory;
  std::vector<zs_tensor> tensors;
  for (const Value &v : c.tensors) {
    memory.push_back(new Guarded(v.bytes, at_end, static_cast<size_t>(v.dtype < 0 ? 1 : size_of(v.dtype))));
    tensors.push_back(tensor_of(v, v.same_as >= 0 ? memory[static_cast<size_t>(v.same_as)]->data() : memory.back()->data()));
  }
  zs_call call = call_of(c, tensors, &context);
  report = {};
  zs::shim::set_order(backward ? zs::shim::Order::backward : zs::shim::Order::forward);
  const int32_t status = kernels[c.op](&call);
  if (status != ZS_OK) expect(false, title(c) + ": " + call.error);
  if (const char *error = zs::shim::take_error()) expect(false, title(c) + ": " + error);
  expect(report.op == (c.told == kNothing ? 0 : c.op + 1) && (c.told == kNothing || report.value == c.told),
         title(c) + ": tells of " + std::to_string(report.value) + ", end " + std::to_string(report.end));
  std::vector<Value> values = c.tensors;
  for (size_t i = 0; i < values.size(); i++) {
    if (!memory[i]->intact_around()) expect(false, title(c) + ": writes beside tensor " + std::to_string(i));
    if (!values[i].bytes.empty()) memcpy(values[i].bytes.data(), tensors[i].data, values[i].bytes.size());
  }
  for (Guarded *m : memory) delete m;
  return values;
}

}  // namespace test
