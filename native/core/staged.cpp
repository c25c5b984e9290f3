#include "staged.h"

#include <algorithm>
#include <cstring>

#include "dtype.h"
#include "pieces.h"

namespace zs {

namespace {

constexpr int64_t kAlignElements = 64;

// One of the two tensors: `parts` equal parts, of which a piece takes the same range each.
struct Side {
  char *data = nullptr;
  bool on_device = false;
  int parts = 0;         // 0: there is none
  size_t offset = 0;     // in a slot
  bool direct = false;   // the transport works where it lies
};

class StagedCall {
 public:
  StagedCall(const CollectiveCall &call, int size, size_t bytes, const CollectivePlace &place)
      : call_(call), count_(call.count), element_(call.count > 0 ? bytes / static_cast<size_t>(call.count) : 0) {
    bool gathers = call.kind == Collective::all_gather || call.kind == Collective::all_to_all;
    bool scatters = call.kind == Collective::reduce_scatter || call.kind == Collective::all_to_all;
    in_place_ = call.input == call.output && !scatters;  // the first rank scatters from where its part comes to lie
    if (call.output && bytes > 0) output_ = {static_cast<char *>(call.output), place.output, gathers ? size : 1};
    if (call.input && bytes > 0 && !in_place_)
      input_ = {static_cast<char *>(const_cast<void *>(call.input)), place.input, scatters ? size : 1};
    length_ = piece_length();
    for (Side *side : {&output_, &input_}) {
      side->direct = !side->on_device && (side->parts == 1 || length_ >= count_);
      side->offset = slot_bytes_;
      if (!side->direct) slot_bytes_ += element_ * static_cast<size_t>(length_ * side->parts);
    }
  }
  size_t slot_bytes() const { return slot_bytes_; }
  int64_t num_pieces() const { return std::max<int64_t>(1, (count_ + length_ - 1) / length_); }

  PieceCopies copies(int64_t piece) const {
    PieceCopies made;
    add(made.down, input_, piece);
    if (in_place_) add(made.down, output_, piece);
    add(made.up, output_, piece);
    return made;
  }
  CollectiveCall call(int64_t piece, char *slot) const {
    CollectiveCall made = call_;
    made.count = length(piece);
    made.output = place(output_, piece, slot);
    made.input = in_place_ ? made.output : place(input_, piece, slot);
    return made;
  }

 private:
  // Messages stay whole: of them only so many may be on their way.
  int64_t piece_length() const {
    bool message = call_.kind == Collective::send || call_.kind == Collective::recv;
    int parts = output_.parts + input_.parts;
    if (message || count_ == 0 || parts == 0) return std::max<int64_t>(1, count_);
    auto fits = static_cast<int64_t>(kPieceBytes / (element_ * static_cast<size_t>(parts)));
    fits = std::max<int64_t>(kAlignElements, fits / kAlignElements * kAlignElements);
    return std::min(fits, count_);
  }
  int64_t length(int64_t piece) const { return std::min(length_, count_ - piece * length_); }
  void *place(const Side &side, int64_t piece, char *slot) const {
    if (side.parts == 0) return nullptr;
    if (side.direct) return side.data + element_ * static_cast<size_t>(piece * length_);
    return slot + side.offset;
  }
  void add(std::vector<PieceRange> &ranges, const Side &side, int64_t piece) const {
    if (side.direct) return;
    size_t bytes = element_ * static_cast<size_t>(length(piece));
    for (int part = 0; part < side.parts; part++) {
      auto at = static_cast<size_t>(part * count_ + piece * length_);
      ranges.push_back({side.data + element_ * at, bytes, side.offset + bytes * static_cast<size_t>(part), side.on_device});
    }
  }

  const CollectiveCall call_;
  const int64_t count_;
  const size_t element_;
  bool in_place_ = false;
  Side output_, input_;
  int64_t length_ = 1;
  size_t slot_bytes_ = 0;
};

}  // namespace

void run_staged(ProcessGroup *transport, const CollectiveCall &call, int size, size_t bytes,
                const CollectivePlace &place) {
  StagedCall staged(call, size, bytes, place);
  run_in_pieces(*place.device, staged.slot_bytes(), staged.num_pieces(),
                [&](int64_t piece) { return staged.copies(piece); },
                [&](int64_t piece, char *slot) {
                  CollectiveCall one = staged.call(piece, slot);
                  if (transport) return transport->run(one);
                  size_t part = bytes / static_cast<size_t>(std::max<int64_t>(1, call.count)) *
                                static_cast<size_t>(one.count);
                  if (part > 0 && one.output != one.input) memmove(one.output, one.input, part);
                });
}

}  // namespace zs
