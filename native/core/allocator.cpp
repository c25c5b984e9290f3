#include "allocator.h"

#include <bit>

namespace zs {

namespace {

constexpr size_t kSmallest = 64;
constexpr size_t kLarge = size_t{1} << 20;
constexpr size_t kLargeStep = size_t{64} << 10;
constexpr size_t kSlab = size_t{2} << 20;      // one huge page
constexpr size_t kSegment = size_t{16} << 20;  // for requests below half of it
constexpr size_t kRecords = 256;
constexpr size_t kCandidates = 4;  // newest cached blocks looked at for one without foreign hazards

size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

// Sizes 64, 128, … 512 and then eight per doubling.
struct SizeClass {
  int index;
  size_t bytes;
};

SizeClass size_class(size_t bytes) {
  if (bytes <= 8 * kSmallest) {
    size_t steps = bytes <= kSmallest ? 1 : (bytes + kSmallest - 1) / kSmallest;
    return {static_cast<int>(steps) - 1, steps * kSmallest};
  }
  int exponent = std::bit_width(bytes - 1) - 1;  // bytes in (2^exponent, 2^(exponent+1)]
  size_t step = (size_t{1} << exponent) / 8;
  size_t steps = (bytes - (size_t{1} << exponent) + step - 1) / step;  // 1 to 8
  return {static_cast<int>((exponent - 9) * 8 + 7 + steps), (size_t{1} << exponent) + steps * step};
}

}  // namespace

struct Segment {
  void *data;
  size_t bytes;
  size_t num_live = 0;  // blocks in use
  bool slab = false;    // holds small blocks: stays, its cuts are final
  Block *first = nullptr;
};

Allocator::Allocator(Source source, const Progress *progress)
    : source_(std::move(source)), progress_(progress), small_(size_class(kLarge).index + 1) {}

Allocator::~Allocator() {
  for (auto &segment : segments_) source_.release(segment->data, segment->bytes);
}

size_t Allocator::rounded(size_t bytes) {
  return bytes < kLarge ? size_class(bytes).bytes : round_up(bytes, kLargeStep);
}

Block *Allocator::allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  Block *block = bytes < kLarge ? allocate_small(bytes) : allocate_large(round_up(bytes, kLargeStep));
  if (!block) return nullptr;
  block->free = false;
  block->segment->num_live++;
  num_live_++;
  return block;
}

void Allocator::free(Block *block) {
  block->free = true;
  block->segment->num_live--;
  num_live_--;
  if (block->size_class >= 0) {
    small_[block->size_class].push_back(block);
    return;
  }
  if (block->next && block->next->free) absorb_next(block);
  if (Block *before = block->previous; before && before->free) {
    large_.erase(before);  // before its size, the key, changes
    absorb_next(before);
    block = before;
  }
  large_.insert(block);
}

// Merges the next block, which is free, into this one. A block that is being freed itself is not in
// the set; erasing it is harmless.
void Allocator::absorb_next(Block *block) {
  Block *next = block->next;
  large_.erase(next);
  block->bytes += next->bytes;
  block->hazards.merge(next->hazards);
  block->next = next->next;
  if (block->next) block->next->previous = block;
  recycle(next);
}

Block *Allocator::allocate_small(size_t bytes) {
  SizeClass wanted = size_class(bytes);
  std::vector<Block *> &cached = small_[wanted.index];
  if (!cached.empty()) {
    // The newest is warmest; one that only the compute stream may still use saves a wait.
    size_t pick = cached.size() - 1;
    for (size_t i = 0; i < kCandidates && i < cached.size(); i++) {
      size_t candidate = cached.size() - 1 - i;
      if (progress_->busy(cached[candidate]->hazards, 0)) continue;
      pick = candidate;
      break;
    }
    Block *block = cached[pick];
    cached.erase(cached.begin() + static_cast<ptrdiff_t>(pick));
    return block;
  }
  if (!slab_ || slab_->bytes < wanted.bytes) {
    Segment *segment = add_segment(kSlab);
    if (!segment) return nullptr;
    segment->slab = true;
    // The rest of the old slab, less than 1 MiB, goes to the class it fills best.
    if (slab_) {
      while (slab_->bytes >= kSmallest) {
        SizeClass fits = size_class(slab_->bytes);
        if (fits.bytes > slab_->bytes) fits = size_class(slab_->bytes - slab_->bytes / 8);
        if (fits.bytes > slab_->bytes) fits = size_class(kSmallest);
        Block *rest = new_block();
        rest->data = slab_->data;
        rest->bytes = fits.bytes;
        rest->segment = slab_->segment;
        rest->size_class = fits.index;
        rest->free = true;
        small_[fits.index].push_back(rest);
        slab_->data += fits.bytes;
        slab_->bytes -= fits.bytes;
      }
      recycle(slab_);
    }
    slab_ = segment->first;
  }
  Block *block = new_block();
  block->data = slab_->data;
  block->bytes = wanted.bytes;
  block->segment = slab_->segment;
  block->size_class = wanted.index;
  slab_->data += wanted.bytes;
  slab_->bytes -= wanted.bytes;
  return block;
}

Block *Allocator::allocate_large(size_t bytes) {
  Block key;
  key.bytes = bytes;
  auto found = large_.lower_bound(&key);
  // Among the best fits, one without hazards of other streams.
  for (auto it = found; it != large_.end() && (*it)->bytes <= bytes + bytes / 8; ++it)
    if (!progress_->busy((*it)->hazards, 0)) {
      found = it;
      break;
    }
  Block *block;
  if (found != large_.end()) {
    block = *found;
    large_.erase(found);
  } else {
    // A large one gets what it asks for: whole models lie in such, and what is rounded up is seldom used again.
    Segment *segment = add_segment(bytes < kSegment / 2 ? kSegment : bytes);
    if (!segment) return nullptr;
    block = segment->first;
  }
  if (block->bytes - bytes >= kLargeStep) {
    Block *rest = new_block();
    rest->data = block->data + bytes;
    rest->bytes = block->bytes - bytes;
    rest->segment = block->segment;
    rest->hazards = block->hazards;
    rest->previous = block;
    rest->next = block->next;
    if (rest->next) rest->next->previous = rest;
    block->next = rest;
    block->bytes = bytes;
    rest->free = true;
    large_.insert(rest);
  }
  return block;
}

Segment *Allocator::add_segment(size_t bytes) {
  void *data = source_.allocate(bytes);
  if (!data) return nullptr;
  reserved_ += bytes;
  segments_.push_back(std::make_unique<Segment>(Segment{data, bytes}));
  Segment *segment = segments_.back().get();
  Block *block = new_block();
  block->data = static_cast<char *>(data);
  block->bytes = bytes;
  block->segment = segment;
  segment->first = block;
  return segment;
}

void Allocator::trim() {
  std::erase_if(segments_, [this](std::unique_ptr<Segment> &segment) {
    if (segment->slab || segment->num_live > 0) return false;
    large_.erase(segment->first);  // all its blocks are free and so merged into one
    recycle(segment->first);
    source_.release(segment->data, segment->bytes);
    reserved_ -= segment->bytes;
    return true;
  });
}

Block *Allocator::new_block() {
  if (spare_.empty()) {
    records_.push_back(std::make_unique<Block[]>(kRecords));
    for (size_t i = 0; i < kRecords; i++) spare_.push_back(&records_.back()[i]);
  }
  Block *block = spare_.back();
  spare_.pop_back();
  return block;
}

void Allocator::recycle(Block *block) {
  *block = Block{};
  spare_.push_back(block);
}

}  // namespace zs
