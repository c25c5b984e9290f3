#include "pieces.h"

#include <algorithm>
#include <cstring>

namespace zs {

namespace {

constexpr int64_t kSlots = 3;  // one comes down, one is worked on, one goes up
constexpr size_t kAlign = 256;

// The copies of all pieces, on two streams; events keep a slot from its next piece until it is up.
class Copies {
 public:
  Copies(DeviceStream &device, size_t slot_bytes, int64_t count)
      : up_(device),
        down_(count > 1 ? device.aside() : device),
        slot_bytes_((slot_bytes + kAlign - 1) / kAlign * kAlign),
        scratch_(slot_bytes > 0 ? device.scratch(slot_bytes_ * static_cast<size_t>(std::min(count, kSlots))) : nullptr) {
    if (&down_ != &up_) order(up_, down_);  // the inputs are there
  }
  ~Copies() {
    for (DeviceStream *stream : {&up_, &down_}) stream->settle_quietly();
    for (void *event : events_) up_.backend().event_release(event);
  }
  char *slot(int64_t piece) const { return scratch_ + static_cast<size_t>(piece % kSlots) * slot_bytes_; }

  void fetch(int64_t piece, const std::vector<PieceRange> &ranges) {
    if (piece >= kSlots) down_.wait(events_[static_cast<size_t>(piece - kSlots)]);
    for (const PieceRange &range : ranges)
      if (range.on_device) down_.copy(slot(piece) + range.offset, range.data, range.bytes, ZS_TO_HOST_PINNED);
  }
  void wait(int64_t piece, const std::vector<PieceRange> &ranges) {
    down_.synchronize();
    for (const PieceRange &range : ranges)
      if (!range.on_device) memcpy(slot(piece) + range.offset, range.data, range.bytes);
  }
  void store(int64_t piece, const std::vector<PieceRange> &ranges) {
    for (const PieceRange &range : ranges) {
      if (range.on_device) up_.copy(range.data, slot(piece) + range.offset, range.bytes, ZS_TO_DEVICE_PINNED);
      else memcpy(range.data, slot(piece) + range.offset, range.bytes);
    }
    if (&down_ != &up_) events_.push_back(up_.record());
  }
  void finish() { up_.synchronize(); }

 private:
  void order(DeviceStream &first, DeviceStream &second) {
    void *event = first.record();
    events_.push_back(event);
    second.wait(event);
    events_.pop_back();
    first.backend().event_release(event);
  }
  DeviceStream &up_, &down_;
  const size_t slot_bytes_;
  char *const scratch_;
  std::vector<void *> events_;  // by piece: it is up
};

}  // namespace

void run_in_pieces(DeviceStream &device, size_t slot_bytes, int64_t count,
                   const std::function<PieceCopies(int64_t)> &copies,
                   const std::function<void(int64_t, char *)> &work) {
  Copies all(device, slot_bytes, count);
  PieceCopies now = copies(0), next;
  all.fetch(0, now.down);
  for (int64_t piece = 0; piece < count; piece++) {
    all.wait(piece, now.down);
    if (piece + 1 < count) {
      next = copies(piece + 1);
      all.fetch(piece + 1, next.down);
    }
    work(piece, all.slot(piece));
    all.store(piece, now.up);
    now = std::move(next);
  }
  all.finish();
}

}  // namespace zs
