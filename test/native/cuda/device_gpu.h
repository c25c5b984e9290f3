// What the parts of gpu_runner share: the opened backend, one stream of it, device memory with bytes around it.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "check.h"

namespace test {

extern const zs_backend *backend;
extern zs_backend_open_function open_backend;
extern zs_stream stream;
extern char error[ZS_ERROR_BYTES];

bool works(int32_t status, const std::string &what);

constexpr size_t kGuard = 256;
constexpr char kFill = 0x5b;

// One piece of device memory for all tensors of a case: thousands of cases would wait for the driver's otherwise.
class Arena {
 public:
  Arena() : base_(static_cast<char *>(backend->allocate(kBytes))) {
    if (!base_) fprintf(stderr, "no device memory for %zu bytes\n", kBytes), exit(1);
  }
  void clear() { taken_ = 0; }
  char *take(size_t bytes) {
    char *data = base_ + taken_;
    taken_ += (bytes + kGuard - 1) / kGuard * kGuard;
    if (taken_ > kBytes) fprintf(stderr, "a case needs more than %zu bytes\n", kBytes), exit(1);
    return data;
  }

 private:
  static constexpr size_t kBytes = size_t{24} << 20;
  char *base_;
  size_t taken_ = 0;
};

// Device memory with bytes before and behind that must stay as they are.
class Memory {
 public:
  Memory(Arena &arena, const std::vector<char> &bytes, size_t shift)
      : image_(bytes.size() + 2 * kGuard, kFill), shift_(shift), size_(bytes.size()), base_(arena.take(image_.size())) {
    if (size_ > 0) memcpy(image_.data() + kGuard - shift_, bytes.data(), size_);
    works(backend->copy(&stream, base_, image_.data(), image_.size(), ZS_TO_DEVICE, error), "copy to the device");
  }
  char *data() const { return base_ + kGuard - shift_; }
  // False where a byte beside the tensor has changed.
  bool read(std::vector<char> &bytes) {
    works(backend->copy(&stream, image_.data(), base_, image_.size(), ZS_TO_HOST, error), "copy to the host");
    if (size_ > 0) memcpy(bytes.data(), image_.data() + kGuard - shift_, size_);
    const auto junk = [&](size_t from, size_t to) {
      return std::all_of(image_.begin() + long(from), image_.begin() + long(to), [](char c) { return c == kFill; });
    };
    return junk(0, kGuard - shift_) && junk(kGuard - shift_ + size_, image_.size());
  }

 private:
  std::vector<char> image_;
  size_t shift_, size_;
  char *base_;
};

}  // namespace test
