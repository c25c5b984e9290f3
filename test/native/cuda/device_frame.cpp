// What the backend has beside its kernels, on a GPU: opening, memory, copies of every direction, streams and events, and what
// is told of misuse.
#include "../../../native/ops/elementwise.h"
#include "device_gpu.h"

namespace test {
namespace {

// Device memory of the backend without bytes around it.
class Plain {
 public:
  explicit Plain(size_t bytes) : bytes_(bytes), data_(static_cast<char *>(backend->allocate(bytes))) {
    expect(data_ != nullptr, "no device memory for " + std::to_string(bytes) + " bytes");
  }
  ~Plain() { backend->release(data_, bytes_); }
  Plain(const Plain &) = delete;
  char *data() const { return data_; }

 private:
  size_t bytes_;
  char *data_;
};

class Pinned {
 public:
  explicit Pinned(size_t bytes) : bytes_(bytes), data_(static_cast<char *>(backend->host_allocate(bytes))) {
    if (!data_) fprintf(stderr, "no pinned memory for %zu bytes\n", bytes), exit(1);
  }
  ~Pinned() { backend->host_release(data_, bytes_); }
  Pinned(const Pinned &) = delete;
  char *data() const { return data_; }

 private:
  size_t bytes_;
  char *data_;
};

struct Stream {
  explicit Stream(bool high) { works(backend->stream_create(high, &made, error), "stream_create"); }
  ~Stream() { backend->stream_destroy(&made); }
  Stream(const Stream &) = delete;
  zs_stream made{};
};

bool says(const char *text) { return strstr(error, text) != nullptr; }

void opening() {
  char why[ZS_ERROR_BYTES] = "";
  expect(!open_backend(ZS_BACKEND_ABI + 1, 0, why, sizeof why), "a core of another ABI is refused");
  expect(strstr(why, std::to_string(ZS_BACKEND_ABI).c_str()) && strstr(why, std::to_string(ZS_BACKEND_ABI + 1).c_str()),
         std::string("both ABIs are named: ") + why);
  expect(!open_backend(ZS_BACKEND_ABI, 4096, why, sizeof why) && strstr(why, "4096"), std::string("device 4096: ") + why);
  expect(open_backend(ZS_BACKEND_ABI, 0, why, sizeof why) == backend, "the same device opens again");
  expect(open_backend(ZS_BACKEND_ABI, -1, why, sizeof why) == backend, "the table alone");
  zs_device_info info{};
  works(backend->device_info(-1, &info, error), "device_info");
  expect(info.name[0] && info.capability >= 80 && info.multiprocessors > 0 && info.free_bytes <= info.total_bytes &&
             info.total_bytes > 0 && strlen(info.uuid) == 32 && info.driver > 0,
         "what the device is");
  expect(backend->device_info(4096, &info, error) == ZS_BAD_ARGUMENT && says("4096"), "device 4096 is not there");
  zs_library_info library{};
  int32_t count = 0;
  for (; backend->library_info(count, &library) == ZS_OK; count++)
    printf("%-10s %s %s%s\n", library.name, library.version, library.path, library.path[0] ? "" : library.note);
  expect(count >= 2, "libraries are told of");
}

void memory() {
  for (size_t bytes : {size_t{1}, size_t{255}, size_t{1} << 20}) {
    Plain one(bytes), two(bytes);
    expect(reinterpret_cast<uintptr_t>(one.data()) % 64 == 0 && one.data() != two.data(), "memory is aligned and apart");
  }
  expect(backend->allocate(size_t{1} << 52) == nullptr, "there is not so much memory");
  Plain after(4096);  // and that did no harm
  works(backend->zero(&stream, after.data(), 4096, error), "zero after memory ran out");
  works(backend->stream_synchronize(&stream, error), "after memory ran out");
}

// Sizes around the pieces that pageable copies travel in (4 MiB).
void copies() {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{4095}, size_t{4} << 20, (size_t{9} << 20) + 3}) {
    const std::string what = std::to_string(bytes) + " bytes";
    std::vector<char> source(bytes), target(bytes, 1);
    for (size_t i = 0; i < bytes; i++) source[i] = static_cast<char>(i * 7 + i / 251);
    const std::vector<char> before = source;
    Plain there(bytes + 1), other(bytes + 1);
    works(backend->copy(&stream, there.data(), source.data(), bytes, ZS_TO_DEVICE, error), what + " to the device");
    std::fill(source.begin(), source.end(), char(3));  // may change at once
    works(backend->copy(&stream, other.data(), there.data(), bytes, ZS_ON_DEVICE, error), what + " on the device");
    works(backend->copy(&stream, target.data(), other.data(), bytes, ZS_TO_HOST, error), what + " to the host");
    expect(target == before, what + ": there and back");
    Pinned out(bytes + 1), in(bytes + 1);
    if (bytes > 0) memcpy(out.data(), before.data(), bytes);
    works(backend->zero(&stream, there.data(), bytes, error), "zero");
    works(backend->copy(&stream, other.data(), there.data(), bytes, ZS_ON_DEVICE, error), what + " of zeros");
    works(backend->copy(&stream, there.data(), out.data(), bytes, ZS_TO_DEVICE_PINNED, error), what + " from pinned memory");
    works(backend->copy(&stream, in.data(), there.data(), bytes, ZS_TO_HOST_PINNED, error), what + " to pinned memory");
    works(backend->stream_synchronize(&stream, error), what);
    expect(bytes == 0 || memcmp(in.data(), before.data(), bytes) == 0, what + ": through pinned memory");
    works(backend->copy(&stream, target.data(), other.data(), bytes, ZS_TO_HOST, error), what + " to the host");
    expect(std::all_of(target.begin(), target.end(), [](char c) { return c == 0; }), what + ": zeros");
  }
  expect(backend->copy(&stream, nullptr, nullptr, 4, 77, error) != ZS_OK && says("direction"), "direction 77 is refused");
}

// Two streams by turns add 1 to what the other left: without the waits for events the sum would be another.
void events() {
  constexpr int64_t n = 1 << 18;
  constexpr int kTurns = 40;
  Stream first(false), second(true);
  zs_stream *streams[] = {&first.made, &second.made};
  Plain x(n * 4), y(n * 4);
  works(backend->zero(streams[0], x.data(), n * 4, error), "zero");
  void *event = nullptr;
  for (int turn = 0; turn < kTurns; turn++) {
    zs_stream *on = streams[turn % 2];
    if (event) {
      works(backend->stream_wait(on, event, error), "stream_wait");
      backend->event_release(event);  // the wait still holds
    }
    Value like;
    like.dtype = ZS_F32, like.dims = {n};
    const std::vector<zs_tensor> tensors = {tensor_of(like, turn % 2 ? x.data() : y.data()), tensor_of(like, turn % 2 ? y.data() : x.data())};
    const std::vector<double> plus = {1, 1};
    zs_call call{};
    call.tensors = tensors.data(), call.scalars = plus.data(), call.stream = on->native, call.context = on->context;
    if (backend->kernels[ZS_OP_affine](&call) != ZS_OK) expect(false, std::string("affine: ") + call.error);
    works(backend->event_record(on, &event, error), "event_record");
  }
  works(backend->stream_wait(&stream, event, error), "stream_wait");
  backend->event_release(event);
  std::vector<float> result(n);
  works(backend->copy(&stream, result.data(), x.data(), n * 4, ZS_TO_HOST, error), "copy to the host");
  expect(std::all_of(result.begin(), result.end(), [](float v) { return v == kTurns; }), "streams take turns by events");
  works(backend->synchronize(error), "synchronize");
}

void misuse() {
  std::vector<double> scalars = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  Plain data(64);
  Value wrong;
  wrong.dtype = ZS_I64, wrong.dims = {4};
  const std::vector<zs_tensor> tensors(4, tensor_of(wrong, data.data()));
  zs_call call{};
  call.tensors = tensors.data(), call.scalars = scalars.data(), call.stream = stream.native, call.context = stream.context;
  expect(backend->kernels[ZS_OP_unary](&call) == ZS_UNSUPPORTED && strstr(call.error, "type"), std::string("unary of i64: ") + call.error);
  works(backend->stream_synchronize(&stream, error), "a call that was refused leaves nothing");
}

}  // namespace

void frame() {
  opening();
  memory();
  copies();
  events();
  misuse();
}

}  // namespace test
