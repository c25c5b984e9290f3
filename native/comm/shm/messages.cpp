// send and recv. A send copies the message into a block of its own arena and returns: it waits only
// while 16 messages, or 256 MiB, of it are under way to that receiver. So two ranks may both send
// first. Messages of a pair arrive in order; tag, type and count must be what the receiver expects.
#include <algorithm>
#include <cstring>

#include "members.h"
#include "reduce.h"

namespace zs::shm {
namespace {

constexpr size_t kUnderWay = size_t{256} << 20;
constexpr size_t kKept = 4;  // idle blocks kept for the next messages

std::string describe_message(const char *op, int dtype, int64_t count, int64_t tag, const char *way, int rank) {
  return std::string(op) + " " + dtype_name(dtype) + " ×" + std::to_string(count) + " tag " +
         std::to_string(tag) + " " + way + " rank " + std::to_string(rank);
}

class PendingMessage : public Pending {
 public:
  PendingMessage(const Members &members, const CollectiveCall &call, uint32_t number)
      : members_(members), call_(call), number_(number) {}
  bool sends() const { return call_.kind == Collective::send; }
  int peer() const { return members_.ranks[static_cast<size_t>(call_.peer)]; }
  std::string op() const override { return kind_name(call_.kind); }
  std::string call() const {
    return describe_message(kind_name(call_.kind), call_.dtype, call_.count, call_.tag, sends() ? "to" : "from", peer());
  }
  std::string what() const override {
    return call() + " (message " + std::to_string(number_) + ", group of " + members_.name + ")";
  }
  std::vector<int> missing() const override { return {peer()}; }

 private:
  const Members &members_;
  const CollectiveCall &call_;
  const uint32_t number_;
};

bool was_taken(uint32_t taken, uint32_t message) { return static_cast<int32_t>(taken - message) > 0; }

// An idle block that fits, or a new one; NULL where the arena is full.
Block *find_block(Arena &arena, std::vector<Block> &blocks, size_t bytes) {
  Block *best = nullptr;
  for (Block &block : blocks) {
    if (block.busy || block.bytes < bytes) continue;
    if (!best || block.bytes < best->bytes) best = &block;
  }
  if (best) return best;
  bytes = (bytes + kPage - 1) / kPage * kPage;
  void *data = arena.allocate(bytes);
  if (!data) return nullptr;
  blocks.push_back({static_cast<char *>(data), bytes, false, 0});
  return &blocks.back();
}

// Marks blocks whose messages were taken as idle; returns the bytes still under way.
size_t reap(Arena &arena, std::vector<Block> &blocks, uint32_t taken) {
  size_t under_way = 0, idle = 0;
  for (Block &block : blocks) {
    if (block.busy && was_taken(taken, block.message)) block.busy = false;
    if (block.busy) under_way += block.bytes;
    else ++idle;
  }
  for (size_t i = 0; idle > kKept && i < blocks.size();) {
    if (blocks[i].busy) {
      ++i;
      continue;
    }
    arena.release(blocks[i].data, blocks[i].bytes);
    blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(i));
    --idle;
  }
  return under_way;
}

}  // namespace

void run_send(Job &job, Members &members, const CollectiveCall &call) {
  const auto to = static_cast<size_t>(call.peer);
  Link &link = *members.links[to];
  const std::lock_guard<std::mutex> lock(link.send_mutex);
  Channel &channel = members.own->channels[to];
  const uint32_t number = channel.posted.value.load(std::memory_order_relaxed);
  const PendingMessage pending(members, call, number);
  const size_t bytes = static_cast<size_t>(call.count) * element_size(call.dtype);

  Block *block = nullptr;
  if (number - channel.taken.value.load(std::memory_order_acquire) >= kMessages) {
    job.wait(channel.taken, number - kMessages + 1, pending);
  }
  while (bytes > 0 && !block) {
    const uint32_t taken = channel.taken.value.load(std::memory_order_acquire);
    const size_t under_way = reap(job.arena(), link.blocks, taken);
    if (under_way == 0 || under_way + bytes <= kUnderWay) block = find_block(job.arena(), link.blocks, bytes);
    if (block) break;
    if (under_way == 0) {
      job.fail("OUT_OF_MEMORY", "[send] " + pending.what() + " " + job.arena().no_room(bytes));
    }
    job.wait(channel.taken, taken + 1, pending);
  }

  Message &message = channel.messages[number % kMessages];
  message.tag = call.tag;
  message.count = call.count;
  message.dtype = call.dtype;
  message.offset = 0;
  if (block) {
    std::memcpy(block->data, call.input, bytes);
    block->busy = true;
    block->message = number;
    message.offset = static_cast<uint64_t>(block->data - job.arena().base());
  }
  Job::post(channel.posted, number + 1);
}

void run_receive(Job &job, Members &members, const CollectiveCall &call) {
  const auto from = static_cast<size_t>(call.peer);
  const std::lock_guard<std::mutex> lock(members.links[from]->receive_mutex);
  Channel &channel = members.slots[from]->channels[members.me];
  const uint32_t number = channel.taken.value.load(std::memory_order_relaxed);
  const PendingMessage pending(members, call, number);
  job.wait(channel.posted, number + 1, pending);

  const Message message = channel.messages[number % kMessages];
  if (message.tag != call.tag || message.count != call.count || message.dtype != call.dtype) {
    job.fail("COLLECTIVE_MISMATCH",
             "[recv] message " + std::to_string(number) + " in the group of " + members.name + ": rank " +
                 std::to_string(job.rank()) + " called " + pending.call() + ", rank " +
                 std::to_string(pending.peer()) + " called " +
                 describe_message("send", message.dtype, message.count, message.tag, "to", job.rank()));
  }
  if (message.count > 0) {
    std::memcpy(call.output, job.base(members.ranks[from]) + message.offset,
                static_cast<size_t>(call.count) * element_size(call.dtype));
  }
  Job::post(channel.taken, number + 1);
}

}  // namespace zs::shm
