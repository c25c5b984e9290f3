// The host's work on device memory in pieces: while it works on one, the next is copied down on a stream beside, and
// the one before goes up. Three pieces of pinned memory are all it takes, however much there is.
#pragma once
#include <functional>
#include <vector>

#include "device.h"

namespace zs {

inline constexpr size_t kPieceBytes = size_t{4} << 20;  // of a slot, about

// A range of one piece: of the device, copied to or from `offset` of the piece's slot; of the host, likewise.
struct PieceRange {
  char *data;
  size_t bytes, offset;
  bool on_device;
};

struct PieceCopies {
  std::vector<PieceRange> down, up;
};

// `copies` tells what the piece needs before work(index, slot) and leaves behind. Returns when all is done; throws
// what work threw, once no copy is under way any more.
void run_in_pieces(DeviceStream &device, size_t slot_bytes, int64_t count,
                   const std::function<PieceCopies(int64_t)> &copies,
                   const std::function<void(int64_t, char *)> &work);

}  // namespace zs
