#include "memory.h"

#include <algorithm>

namespace zs {

namespace {

constexpr int kSlotBits = 24;
constexpr int64_t kMaxSlots = int64_t{1} << kSlotBits;
constexpr uint32_t kMaxGeneration = (1u << 28) - 1;  // a handle stays below 2^52
constexpr int64_t kMaxCount = int64_t{1} << 50;
constexpr size_t kStorageRecords = 256;

alignas(64) char no_bytes[64];  // where tensors without elements point

std::string readable(int64_t bytes) {
  const char *units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    unit++;
  }
  return text(unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

}  // namespace

int read_index(double value, int end, const char *what) {
  if (!(value >= 0 && value < end) || value != static_cast<int>(value))
    throw Error{"ARGUMENT", text("%s %g is not an integer from 0 to %d", what, value, end - 1)};
  return static_cast<int>(value);
}

Shape read_shape(const double *packet) {
  Shape shape;
  shape.ndim = read_index(packet[0], ZS_MAX_DIMS + 1, "number of dims");
  for (int i = 0; i < shape.ndim; i++) {
    double size = packet[1 + i];
    bool valid = size >= 0 && size <= static_cast<double>(kMaxCount);
    int64_t dim = valid ? static_cast<int64_t>(size) : 0;
    if (!valid || static_cast<double>(dim) != size)
      throw Error{"SHAPE", text("dim %d has size %g, which no tensor can have", i, size)};
    shape.dims[i] = dim;
    if (dim != 0 && shape.count > kMaxCount / dim)
      throw Error{"SHAPE", text("the shape has more than 2^50 elements (dim %d: %g)", i, size)};
    shape.count *= dim;
  }
  return shape;
}

Memory::Memory(const zs_backend &backend, const Progress *progress, std::function<void()> drain)
    : progress_(progress), drain_(std::move(drain)), source_{backend.allocate, backend.release} {
  normal_ = std::make_unique<Allocator>(source_, progress);
  if (!backend.host_memory)
    host_ = std::make_unique<Allocator>(Allocator::Source{backend.host_allocate, backend.host_release}, progress);
}

Memory::~Memory() = default;

Tensor &Memory::find(double handle) {
  if (!(handle >= 1 && handle < 0x1p52) || handle != static_cast<double>(static_cast<int64_t>(handle)))
    throw Error{"ARGUMENT", text("%g is not a tensor handle", handle)};
  int64_t value = static_cast<int64_t>(handle);
  size_t slot = static_cast<size_t>(value & (kMaxSlots - 1));
  uint32_t generation = static_cast<uint32_t>(value >> kSlotBits);
  if (slot >= tensors_.size() || generation == 0 || generation > tensors_[slot].generation)
    throw Error{"ARGUMENT", text("%.0f is not a tensor handle", handle)};
  Tensor &tensor = tensors_[slot];
  if (!tensor.storage || tensor.generation != generation)
    throw Error{"DISPOSED", text("the tensor with handle %.0f was disposed", handle)};
  return tensor;
}

int64_t Memory::allocate(const Shape &shape, int dtype, int category, bool shared) {
  int64_t bytes = shape.count * kDtypeBytes[dtype];
  bool limited = limit_ > 0 && !(host_ && category == kHost);
  if (limited && live_total_ + bytes > limit_) out_of_memory(bytes, category);
  Allocator *allocator = nullptr;
  Block *block = nullptr;
  if (bytes > 0) {
    block = allocate_block(static_cast<size_t>(bytes), category, shared, &allocator);
    if (!block) out_of_memory(bytes, category);
  }
  if (free_storages_.empty()) {
    storage_records_.push_back(std::make_unique<Storage[]>(kStorageRecords));
    for (size_t i = 0; i < kStorageRecords; i++)
      free_storages_.push_back(&storage_records_.back()[i]);
  }
  Storage *storage = free_storages_.back();
  free_storages_.pop_back();
  *storage = Storage{};
  storage->block = block;
  storage->allocator = allocator;
  storage->data = block ? block->data : no_bytes;
  storage->bytes = bytes;
  storage->category = category;
  storage->shared = shared;
  storage->on_device = host_ && block && category != kHost;
  if (block) storage->hazards = block->hazards;
  count(category, bytes);
  return new_handle(storage, shape, dtype, storage->data);
}

void Memory::recategorize(int64_t handle, int category) {
  Storage &storage = *find(static_cast<double>(handle)).storage;
  count(storage.category, -storage.bytes);
  storage.category = category;
  count(category, storage.bytes);
}

void Memory::count(int category, int64_t bytes) {
  live_[category] += bytes;
  if (!host_ || category != kHost) live_total_ += bytes;
  peak_[category] = std::max(peak_[category], live_[category]);
}

bool Memory::would_move(int64_t handle, int category) {
  const Storage &storage = *find(static_cast<double>(handle)).storage;
  return host_ && storage.block && (storage.category == kHost) != (category == kHost);
}

Memory::Old Memory::exchange(int64_t handle, int category) {
  Storage *storage = find(static_cast<double>(handle)).storage;
  if (storage->num_graphs > 0)
    throw Error{"UNSUPPORTED", "a captured graph works on this memory, which cannot move; drop the graph first"};
  if (storage->num_windows > 0)
    throw Error{"UNSUPPORTED", "the ranks of a group know this memory as a window, which cannot move; all of them "
                               "unregister() the tensor first, or set ZEROSHARD_NCCL_BUFFERS=registered"};
  Old old{storage->block, storage->allocator, storage->hazards, storage->data, storage->on_device};
  Allocator *allocator = nullptr;
  Block *block = allocate_block(static_cast<size_t>(storage->bytes), category, storage->shared, &allocator);
  if (!block) out_of_memory(storage->bytes, category);
  for (Tensor &tensor : tensors_)
    if (tensor.storage == storage)
      tensor.range.data = block->data + (static_cast<char *>(tensor.range.data) - old.data);
  storage->block = block;
  storage->allocator = allocator;
  storage->data = block->data;
  storage->hazards = block->hazards;
  storage->on_device = category != kHost;
  return old;
}

void Memory::release_old(const Old &old) {
  old.block->hazards = old.hazards;
  old.allocator->free(old.block);
}

// Cached memory that no request fits goes back to the system before the answer is "none left". A full
// arena is no error: its tensors work anywhere, peers only read them with one more copy.
Block *Memory::allocate_block(size_t bytes, int category, bool shared, Allocator **from) {
  if (shared && arena_ && !(host_ && category == kHost)) {
    *from = arena_;
    if (Block *block = arena_->allocate(bytes)) return block;
  }
  bool on_host = host_ && category == kHost;
  Allocator &allocator = on_host ? *host_ : pool_ ? *pool_ : *normal_;
  *from = &allocator;
  if (Block *block = allocator.allocate(bytes)) return block;
  drain_();
  (on_host ? *host_ : *normal_).trim();
  return allocator.allocate(bytes);
}

int64_t Memory::view(int64_t handle, int64_t offset, int dtype, const Shape &shape) {
  Tensor source = find(static_cast<double>(handle));
  int64_t element = kDtypeBytes[dtype];
  int64_t bytes = source.bytes();
  if (offset < 0 || offset > bytes / element || shape.count > bytes / element - offset) {
    throw Error{"SHAPE", text("%lld elements of %s from %lld on do not fit in a tensor of %lld bytes",
                              static_cast<long long>(shape.count), kDtypeNames[dtype],
                              static_cast<long long>(offset), static_cast<long long>(bytes))};
  }
  char *data = static_cast<char *>(source.range.data) + offset * element;
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(element) != 0)
    throw Error{"DTYPE", text("the memory is not aligned for %s", kDtypeNames[dtype])};
  return new_handle(source.storage, shape, dtype, data);
}

int64_t Memory::new_handle(Storage *storage, const Shape &shape, int dtype, char *data) {
  uint32_t slot;
  if (!free_slots_.empty()) {
    slot = free_slots_.back();
    free_slots_.pop_back();
  } else {
    if (static_cast<int64_t>(tensors_.size()) == kMaxSlots)
      throw Error{"OUT_OF_MEMORY", "16,777,216 tensors are alive; dispose of some"};
    slot = static_cast<uint32_t>(tensors_.size());
    tensors_.emplace_back();
  }
  Tensor &tensor = tensors_[slot];
  tensor.generation = tensor.generation == kMaxGeneration ? 1 : tensor.generation + 1;
  tensor.storage = storage;
  tensor.range = zs_tensor{};
  tensor.range.data = data;
  tensor.range.count = shape.count;
  tensor.range.ndim = shape.ndim;
  tensor.range.dtype = dtype;
  std::copy_n(shape.dims, ZS_MAX_DIMS, tensor.range.dims);
  storage->num_handles++;
  return static_cast<int64_t>(tensor.generation) << kSlotBits | slot;
}

void Memory::free(int64_t handle) {
  Tensor &tensor = find(static_cast<double>(handle));
  Storage *storage = tensor.storage;
  tensor.storage = nullptr;
  free_slots_.push_back(static_cast<uint32_t>(handle & (kMaxSlots - 1)));
  if (--storage->num_handles == 0) release(storage);
}

void Memory::release(Storage *storage) {
  count(storage->category, -storage->bytes);
  if (storage->block) {
    storage->block->hazards = storage->hazards;
    storage->allocator->free(storage->block);
    bool usual = storage->allocator == normal_.get() || storage->allocator == host_.get();
    if (!usual && storage->allocator != arena_ && storage->allocator != pool_) drop_empty_arenas();
  }
  free_storages_.push_back(storage);
}

void Memory::set_arena(std::shared_ptr<ProcessGroup> group) {
  arena_ = nullptr;
  drop_empty_arenas();
  if (!group) return;
  ProcessGroup *raw = group.get();
  Allocator::Source source{[raw](size_t bytes) { return raw->arena_allocate(bytes); },
                           [raw](void *data, size_t bytes) { raw->arena_release(data, bytes); }};
  auto allocator = std::make_unique<Allocator>(std::move(source), progress_);
  arena_ = allocator.get();
  arenas_.push_back(std::make_unique<Arena>(Arena{std::move(group), std::move(allocator)}));
}

void Memory::drop_empty_arenas() {
  auto empty = [this](const std::unique_ptr<Arena> &arena) {
    return arena->allocator.get() != arena_ && !arena->kept && arena->allocator->num_live() == 0;
  };
  if (std::none_of(arenas_.begin(), arenas_.end(), empty)) return;
  drain_();
  std::erase_if(arenas_, empty);
}

Memory::Stats Memory::stats() const {
  Stats stats;
  std::copy_n(live_, kNumCategories, stats.live);
  std::copy_n(peak_, kNumCategories, stats.peak);
  stats.reserved = static_cast<int64_t>(normal_->reserved() + (host_ ? host_->reserved() : 0));
  for (const auto &arena : arenas_)
    stats.reserved += static_cast<int64_t>(arena->allocator->reserved());
  stats.tensors = static_cast<int64_t>(tensors_.size() - free_slots_.size());
  return stats;
}

void Memory::reset_peak() { std::copy_n(live_, kNumCategories, peak_); }

void Memory::out_of_memory(int64_t bytes, int category) const {
  std::string table;
  for (int i = 0; i < kNumCategories; i++)
    table += text("%s%s %s", i ? ", " : "", kCategoryNames[i], readable(live_[i]).c_str());
  std::string limit = limit_ > 0 ? text(", limit %s", readable(limit_).c_str()) : "";
  throw Error{"OUT_OF_MEMORY",
              text("no memory for %s of %s; live: %s, reserved %s%s", readable(bytes).c_str(),
                   kCategoryNames[category], table.c_str(), readable(stats().reserved).c_str(),
                   limit.c_str())};
}

}  // namespace zs
