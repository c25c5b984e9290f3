// The caching allocator. Memory comes from a source (the backend, or the shared arena) in segments and
// is never waited for: a freed block goes back at once with the hazards of what is queued on it, and
// whoever gets it next inherits them. Only the thread that queues work may call it.
//
// Small blocks (below 1 MiB): classes of eight sizes per doubling (at most 12.5 % more than asked for,
// 64 bytes at least), cut from slabs. Large ones: multiples of 64 KiB, best fit, split and merged
// again within their segment, so one huge block never serves a small request whole.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "hazard.h"

namespace zs {

struct Segment;

// A block handed out, or cached. `next` and `previous`: neighbours in the segment (large blocks).
struct Block {
  char *data = nullptr;
  size_t bytes = 0;
  Hazards hazards;
  Segment *segment = nullptr;
  Block *previous = nullptr, *next = nullptr;
  int size_class = -1;  // of small blocks
  bool free = false;
};

class Allocator {
 public:
  struct Source {
    std::function<void *(size_t)> allocate;
    std::function<void(void *, size_t)> release;
  };
  Allocator(Source source, const Progress *progress);
  ~Allocator();  // releases all; the streams must have stopped using it
  Allocator(const Allocator &) = delete;
  Allocator &operator=(const Allocator &) = delete;

  Block *allocate(size_t bytes);  // nullptr where the source has none left
  void free(Block *block);
  // Gives segments without a block in use back to the source. The streams must be idle.
  void trim();
  size_t reserved() const { return reserved_; }
  size_t num_live() const { return num_live_; }

  static size_t rounded(size_t bytes);  // what a request really takes

 private:
  struct BySize {
    bool operator()(const Block *a, const Block *b) const {
      return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data;
    }
  };
  Block *allocate_small(size_t bytes);
  Block *allocate_large(size_t bytes);
  Segment *add_segment(size_t bytes);
  Block *new_block();
  void recycle(Block *block);
  void absorb_next(Block *block);

  Source source_;
  const Progress *progress_;
  std::vector<std::vector<Block *>> small_;  // free blocks by class
  Block *slab_ = nullptr;                    // what small blocks are cut from
  std::set<Block *, BySize> large_;          // free blocks
  std::vector<std::unique_ptr<Segment>> segments_;
  std::vector<Block *> spare_;  // records without memory
  std::vector<std::unique_ptr<Block[]>> records_;
  size_t reserved_ = 0;
  size_t num_live_ = 0;
};

}  // namespace zs
