// Moving: ranges are cut into blocks, which threads or rings bring to and from the disk.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "lane.h"

namespace zs {

namespace {

int64_t page_of(int64_t offset) { return offset / kDiskPage * kDiskPage; }

bool is_aligned(const void *data) { return reinterpret_cast<uintptr_t>(data) % kDiskPage == 0; }

}  // namespace

std::vector<SwapFile::Block> SwapFile::cut(const std::vector<SwapRange> &ranges) const {
  std::vector<Block> blocks;
  int64_t size = page_of(options_.block_size);
  for (const SwapRange &range : ranges) {
    int64_t end = range.offset + range.bytes;
    for (int64_t at = range.offset; at < end;) {
      int64_t next = std::min(end, (at / size + 1) * size);
      char *data = range.data + (at - range.offset);
      Block block{at, data, next - at, at, next - at, data, false};
      if (direct_) {
        block.first = page_of(at);
        block.length = page_of(next + kDiskPage - 1) - block.first;
        block.buffered = block.first != at || block.length != block.bytes || !is_aligned(data);
      }
      blocks.push_back(block);
      at = next;
    }
  }
  return blocks;
}

void SwapFile::transfer(bool write, const std::vector<SwapRange> &ranges) {
  Transfer transfer{write, cut(ranges), {}, {}, {}, {}};
  size_t num_blocks = transfer.blocks.size();
  int hands = static_cast<int>(std::min(lanes_.size(), num_blocks));
  auto work = [&](int index) {
    try {
      Lane &lane = *lanes_[static_cast<size_t>(index)];
      if (lane.ring) work_by_ring(transfer, lane);
      else work_by_thread(transfer, lane);
    } catch (const Error &error) {
      transfer.fail(error);
    } catch (const std::bad_alloc &) {
      transfer.fail({"OUT_OF_MEMORY", "no memory left for the disk's buffers"});
    }
  };
  crew_->run(std::max(hands, 1), work);
  if (transfer.error) throw *transfer.error;
}

char *SwapFile::buffer_of(Lane &lane, size_t slot) const {
  int64_t bytes = page_of(options_.block_size) + kDiskPage;
  lane.reserve(bytes, lane.ring ? options_.queue_depth : 1);
  return lane.buffers.get() + static_cast<int64_t>(slot) * bytes;
}

// What is around a written part stays as it is.
void SwapFile::prepare(bool write, Block &block, char *buffer) const {
  block.place = buffer;
  if (!write) return;
  int64_t last = block.first + block.length - kDiskPage;
  bool whole_tail = block.offset + block.bytes == block.first + block.length;
  auto read_page = [&](int64_t offset) {
    move(false, Block{offset, nullptr, kDiskPage, offset, kDiskPage, buffer + (offset - block.first), true}, 0);
  };
  if (block.first != block.offset || (last == block.first && !whole_tail)) read_page(block.first);
  if (last != block.first && !whole_tail) read_page(last);
  memcpy(buffer + (block.offset - block.first), block.data, static_cast<size_t>(block.bytes));
}

void SwapFile::finish(bool write, const Block &block) {
  if (!write && block.buffered)
    memcpy(block.data, block.place + (block.offset - block.first), static_cast<size_t>(block.bytes));
}

// The rest of a block, from its byte `from` on, in this thread.
void SwapFile::move(bool write, const Block &block, int64_t from) const {
  while (from < block.length) {
    char *place = block.place + from;
    size_t bytes = static_cast<size_t>(block.length - from);
    ssize_t moved = write ? pwrite(fd_, place, bytes, block.first + from) : pread(fd_, place, bytes, block.first + from);
    if (moved < 0 && errno == EINTR) continue;
    bool odd = direct_ && moved > 0 && moved % 512 != 0;  // only at the end of a file
    if (moved <= 0 || odd) {
      int64_t got = from + std::max<ssize_t>(moved, 0) - (block.offset - block.first);
      failed(write, block.offset, block.bytes, std::max<int64_t>(got, 0), moved < 0 ? errno : 0);
    }
    from += moved;
  }
}

void SwapFile::work_by_thread(Transfer &transfer, Lane &lane) {
  while (Block *block = transfer.take()) {
    if (block->buffered) prepare(transfer.write, *block, buffer_of(lane, 0));
    move(transfer.write, *block, 0);
    finish(transfer.write, *block);
  }
}

// Whatever happens, it returns only when the kernel is done with all memory that it was given.
void SwapFile::work_by_ring(Transfer &transfer, Lane &lane) {
  Uring &ring = *lane.ring;
  size_t depth = static_cast<size_t>(std::min(options_.queue_depth, 4096));
  lane.slots.assign(depth, nullptr);
  size_t in_flight = 0;
  bool more = true;
  int broken = 0;
  while (more || in_flight > 0) {
    for (size_t slot = 0; more && slot < depth; slot++) {
      if (lane.slots[slot]) continue;
      Block *block = transfer.take();
      if (!block) {
        more = false;
        break;
      }
      try {
        if (block->buffered) prepare(transfer.write, *block, buffer_of(lane, slot));
      } catch (const Error &error) {
        transfer.fail(error);
        continue;
      }
      ring.push(transfer.write, fd_, block->place, static_cast<size_t>(block->length), block->first, slot);
      lane.slots[slot] = block;
      in_flight++;
      if (options_.single_submit) broken = ring.submit(0);
    }
    if (in_flight == 0) break;
    broken = ring.submit(static_cast<unsigned>(options_.overlap_events ? 1 : in_flight));
    if (broken) break;
    for (Uring::Done done; ring.reap(&done); in_flight--) {
      Block *block = std::exchange(lane.slots[done.id], nullptr);
      try {
        bool again = done.result == -EAGAIN || done.result == -EINTR;
        if (done.result < 0 && !again)
          failed(transfer.write, block->offset, block->bytes, 0, -done.result);
        if (done.result != block->length)
          move(transfer.write, *block, page_of(std::max(done.result, 0)));
        finish(transfer.write, *block);
      } catch (const Error &error) {
        transfer.fail(error);
      }
    }
  }
  if (broken) abandon(transfer, lane, in_flight, broken);
}

// The ring refuses to be waited on: what it was handed comes back nevertheless, what it was not is done here.
void SwapFile::abandon(Transfer &transfer, Lane &lane, size_t in_flight, int error) {
  transfer.fail({"IO", text("'%s': io_uring has failed (%s); resume from the last checkpoint", path_.c_str(),
                            strerror(error))});
  Uring::Done done;
  for (size_t left = in_flight - lane.ring->unsubmitted(); left > 0;) {
    if (lane.ring->reap(&done)) left--;
    else usleep(100);
  }
  lane.ring.reset();
  lane.buffers.reset();
}

void SwapFile::failed(bool write, int64_t offset, int64_t bytes, int64_t moved, int error) const {
  const char *cure = error == ENOSPC || error == EDQUOT ? "free some of that disk, or name another nvme_path"
                     : error                            ? "the disk is at fault: see the kernel's log, name another nvme_path"
                     : write                            ? "free some of that disk, or name another nvme_path"
                                                        : "something has cut the file off";
  std::string what = error ? std::string(strerror(error)) : text("short %s", write ? "write" : "read");
  throw Error{"IO", text("'%s' at offset %lld: %s, %lld of %lld bytes were %s; %s, and resume from the last checkpoint",
                         path_.c_str(), static_cast<long long>(offset), what.c_str(), static_cast<long long>(moved),
                         static_cast<long long>(bytes), write ? "written" : "read", cure)};
}

}  // namespace zs
