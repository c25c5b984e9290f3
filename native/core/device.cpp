#include "device.h"

#include <cstring>

#include "device_clock.h"

namespace zs {

namespace {

constexpr size_t kScratchStep = size_t{1} << 20;
constexpr size_t kAlign = 256;

void check(int32_t status, const char *error) {
  if (status == ZS_OK) return;
  throw Error{status_code(status), error[0] ? error : "the device gave no reason"};
}

}  // namespace

const char *status_code(int32_t status) {
  switch (status) {
    case ZS_BAD_ARGUMENT: return "ARGUMENT";
    case ZS_NO_MEMORY: return "OUT_OF_MEMORY";
    case ZS_UNSUPPORTED: return "UNSUPPORTED";
    case ZS_DEVICE_ERROR: return "DEVICE";
    default: return "INTERNAL";
  }
}

DeviceStream::DeviceStream(const zs_backend &backend, bool high_priority, Lost *lost)
    : backend_(backend), lost_(lost), high_priority_(high_priority) {
  char error[ZS_ERROR_BYTES] = "";
  check(backend_.stream_create(high_priority, &stream_, error), error);
}

DeviceStream::~DeviceStream() {
  backend_.stream_destroy(&stream_);
  if (scratch_) backend_.host_release(scratch_, scratch_bytes_);
}

void DeviceStream::attach() {
  char error[ZS_ERROR_BYTES] = "";
  check(backend_.attach(error), error);
}

void DeviceStream::refuse_in_capture(const char *what) const {
  if (capturing_) throw Error{"UNSUPPORTED", text("%s, which cannot be part of a captured graph", what)};
}

void DeviceStream::copy(void *target, const void *source, size_t bytes, zs_direction direction) {
  if (direction == ZS_TO_DEVICE || direction == ZS_TO_HOST) refuse_in_capture("it copies from or to the host");
  char error[ZS_ERROR_BYTES] = "";
  check(backend_.copy(&stream_, target, source, bytes, direction, error), error);
  if (direction == ZS_TO_HOST) lost_->check();
}

void DeviceStream::zero(void *target, size_t bytes) {
  char error[ZS_ERROR_BYTES] = "";
  check(backend_.zero(&stream_, target, bytes, error), error);
}

void DeviceStream::synchronize() {
  refuse_in_capture("the host works on it, or waits for the device");
  char error[ZS_ERROR_BYTES] = "";
  check(backend_.stream_synchronize(&stream_, error), error);
  lost_->check();
}

void DeviceStream::settle_quietly() {
  char error[ZS_ERROR_BYTES];
  backend_.stream_synchronize(&stream_, error);
}

DeviceStream &DeviceStream::aside() {
  if (!aside_) aside_ = std::make_unique<DeviceStream>(backend_, high_priority_, lost_);
  return *aside_;
}

void *DeviceStream::record() {
  char error[ZS_ERROR_BYTES] = "";
  void *event = nullptr;
  check(backend_.event_record(&stream_, &event, error), error);
  return event;
}

void DeviceStream::wait(void *event) {
  char error[ZS_ERROR_BYTES] = "";
  check(backend_.stream_wait(&stream_, event, error), error);
}

Moment DeviceStream::moment() {
  char error[ZS_ERROR_BYTES] = "";
  void *made = nullptr;
  check(backend_.moment_record(&stream_, &made, error), error);
  return {backend_, made};
}

void DeviceStream::wait_on_host(void *event) {
  char error[ZS_ERROR_BYTES] = "";
  zs_stream stream = stream_;
  check(backend_.event_wait(&stream, event, error), error);
  lost_->check();
}

char *DeviceStream::scratch(size_t bytes) {
  if (bytes <= scratch_bytes_) return scratch_;
  if (scratch_) backend_.host_release(scratch_, scratch_bytes_);
  scratch_bytes_ = 0;
  bytes = (bytes + bytes / 4 + kScratchStep - 1) / kScratchStep * kScratchStep;
  scratch_ = static_cast<char *>(backend_.host_allocate(bytes));
  if (!scratch_) throw Error{"OUT_OF_MEMORY", text("no pinned host memory of %zu bytes", bytes)};
  scratch_bytes_ = bytes;
  return scratch_;
}

int Staging::add(const void *data, size_t bytes, bool on_device, Use use) {
  char *begin = static_cast<char *>(const_cast<void *>(data));
  int index = static_cast<int>(ranges_.size());
  Range range{begin, bytes, 0, on_device && bytes > 0, use};
  if (range.on_device) {
    for (int i = 0; i < index; i++) {
      const Range &other = ranges_[static_cast<size_t>(i)];
      if (!other.on_device || begin < other.data || begin + bytes > other.data + other.bytes) continue;
      range.offset = other.offset + static_cast<size_t>(begin - other.data);
      ranges_.push_back(range);
      return index;
    }
    range.offset = bytes_;
    bytes_ += (bytes + kAlign - 1) / kAlign * kAlign;
  }
  ranges_.push_back(range);
  return index;
}

void Staging::fetch() {
  if (bytes_ > 0) scratch_ = device_->scratch(bytes_);
  for (const Range &range : ranges_)
    if (range.on_device && (range.use & in))
      device_->copy(scratch_ + range.offset, range.data, range.bytes, ZS_TO_HOST_PINNED);
  device_->synchronize();
}

void *Staging::at(int index) const {
  const Range &range = ranges_[static_cast<size_t>(index)];
  return range.on_device ? scratch_ + range.offset : range.data;
}

void Staging::store() {
  bool any = false;
  for (const Range &range : ranges_)
    if (range.on_device && (range.use & out)) {
      device_->copy(range.data, scratch_ + range.offset, range.bytes, ZS_TO_DEVICE_PINNED);
      any = true;
    }
  if (any) device_->synchronize();
}

}  // namespace zs
