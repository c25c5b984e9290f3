#include "link.h"

#include <algorithm>

namespace zs {

namespace {

// More than a schedule has under way, but for GPipe with very many micro-batches; then the caller's stream waits.
constexpr size_t kMostMessages = 64;
constexpr size_t kStep = size_t{1} << 20;  // of a block

size_t bytes_of(const CollectiveCall &call) {
  constexpr size_t sizes[] = {4, 2, 2, 4, 1, 8};
  return static_cast<size_t>(call.count) * sizes[call.dtype];
}

std::string words_of(const int64_t *words) {
  constexpr const char *names[] = {"f32", "bf16", "f16", "i32", "u8", "i64"};
  const char *dtype = words[2] >= 0 && words[2] < 6 ? names[words[2]] : "?";
  return std::string(dtype) + " ×" + std::to_string(words[1]) + " tag " + std::to_string(words[0]);
}

}  // namespace

Link::Link(Ends ends, void *communicator, Fail fail)
    : ends_(std::move(ends)),
      collectives_(*ends_.backend->collectives),
      communicator_(communicator),
      fail_(std::move(fail)) {}

void Link::finish() {
  {
    std::lock_guard guard(lock_);
    stop_ = true;
    moved_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

Link::~Link() {
  finish();
  collectives_.destroy(communicator_);
  if (stream_.context) ends_.backend->stream_destroy(&stream_);
  for (auto &block : blocks_) ends_.backend->release(block->data, block->bytes);
}

void Link::check(int32_t status, const char *error) const {
  if (status != ZS_OK) throw CommError{"DEVICE", "[" + ends_.name + "] " + error};
}

void Link::connect() {
  char error[ZS_ERROR_BYTES] = "";
  check(ends_.backend->stream_create(1, &stream_, error), error);
  Block *block = take(1);
  exchange(ends_.sends ? ZS_SEND : ZS_RECV, {{0, 1, ZS_U8}, block, nullptr}, block->data, &stream_);
  check(ends_.backend->stream_synchronize(&stream_, error), error);
  give_back(block);
  if (ends_.sends) thread_ = std::thread([this] { work(); });
}

void Link::run(const CollectiveCall &call) {
  if (ends_.sends) send(call);
  else receive(call);
}

void Link::send(const CollectiveCall &call) {
  Message message = {{call.tag, call.count, call.dtype}, nullptr, nullptr};
  if (call.count > 0) {
    char error[ZS_ERROR_BYTES] = "";
    zs_stream stream = *call.stream;
    message.block = take(bytes_of(call));
    check(ends_.backend->copy(&stream, message.block->data, call.input, bytes_of(call), ZS_ON_DEVICE, error), error);
    check(ends_.backend->event_record(&stream, &message.copied, error), error);
  }
  std::lock_guard guard(lock_);
  queue_.push_back(message);
  moved_.notify_all();
}

// The smallest idle block that fits, or a new one; where there is no memory for it, one that is under way must do.
Link::Block *Link::take(size_t bytes) {
  std::unique_lock guard(lock_);
  for (;;) {
    if (failed_) throw *failed_;
    Block *best = nullptr;
    for (auto &block : blocks_)
      if (!block->busy && block->bytes >= bytes && (!best || block->bytes < best->bytes)) best = block.get();
    if (!best && queue_.size() < kMostMessages) {
      size_t all = (bytes + kStep - 1) / kStep * kStep;
      void *data = ends_.backend->allocate(all);
      if (data) best = blocks_.emplace_back(new Block{data, all, false}).get();
    }
    if (best && (best->busy = true)) return best;
    std::erase_if(blocks_, [this](auto &block) {  // too small, and in the way
      if (block->busy) return false;
      ends_.backend->release(block->data, block->bytes);
      return true;
    });
    if (queue_.empty())
      throw CommError{"OUT_OF_MEMORY", "[" + ends_.name + "] no device memory for a message of " +
                                           std::to_string(bytes) + " bytes"};
    size_t before = queue_.size();
    moved_.wait(guard, [&] { return failed_ || queue_.size() < before; });
  }
}

void Link::give_back(Block *block) {
  std::lock_guard guard(lock_);
  if (block) block->busy = false;
}

void Link::work() {
  char error[ZS_ERROR_BYTES] = "";
  bool attached = ends_.backend->attach(error) == ZS_OK;
  std::unique_lock guard(lock_);
  for (;;) {
    moved_.wait(guard, [this] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Message message = queue_.front();
    bool skip = failed_ != nullptr;
    guard.unlock();
    std::unique_ptr<CommError> why;
    try {
      if (!attached) check(ZS_DEVICE_ERROR, error);
      if (!skip) deliver(message);
    } catch (const CommError &failure) {
      why = std::make_unique<CommError>(failure);
    }
    if (why) fail_(*why);
    if (message.copied) ends_.backend->event_release(message.copied);
    guard.lock();
    if (why) failed_ = std::move(why);
    if (message.block) message.block->busy = false;
    queue_.pop_front();
    moved_.notify_all();
  }
}

void Link::deliver(const Message &message) {
  int64_t words[3] = {message.words[0], message.words[1], message.words[2]}, ready = 0;
  tell(Collective::send, words, 3);
  tell(Collective::recv, &ready, 1);
  if (!message.block) return;
  char error[ZS_ERROR_BYTES] = "";
  check(ends_.backend->stream_wait(&stream_, message.copied, error), error);
  exchange(ZS_SEND, message, message.block->data, &stream_);
  check(ends_.backend->stream_synchronize(&stream_, error), error);
}

void Link::receive(const CollectiveCall &call) {
  Message wanted = {{call.tag, call.count, call.dtype}, nullptr, nullptr};
  int64_t words[3], ready = 1;
  tell(Collective::recv, words, 3);
  if (!std::equal(words, words + 3, wanted.words)) {
    CommError error{"COLLECTIVE_MISMATCH", "[recv] " + ends_.name + ": the receiver expects " + words_of(wanted.words) +
                                               ", the sender sent " + words_of(words)};
    fail_(error);
    throw error;
  }
  tell(Collective::send, &ready, 1);
  if (call.count > 0) exchange(ZS_RECV, wanted, call.output, call.stream);
}

void Link::exchange(int kind, const Message &message, void *data, const zs_stream *stream) {
  char error[ZS_ERROR_BYTES] = "";
  zs_exchange one = {kind, static_cast<int32_t>(message.words[2]), kind == ZS_RECV ? data : nullptr,
                     kind == ZS_SEND ? data : nullptr, message.words[1], ends_.peer, 0};
  check(collectives_.run(communicator_, 2, &one, stream, error), error);
}

// Between the two hosts.
void Link::tell(Collective kind, void *words, int64_t count) {
  CollectiveCall call{};
  call.kind = kind;
  call.group = ends_.group;
  call.peer = ends_.peer;
  call.dtype = ZS_I64;
  call.count = count;
  if (kind == Collective::recv) call.output = words;
  else call.input = words;
  ends_.host->run(call);
}

}  // namespace zs
