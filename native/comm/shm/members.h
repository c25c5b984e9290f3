// One process group as its member sees it, and what its collectives are made of: steps (all members
// arrive), entered with a header that says what is called and where the buffers lie.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "job.h"

namespace zs::shm {

// A block of the arena that carries messages to one receiver; kept for the next ones.
struct Block {
  char *data;
  size_t bytes;
  bool busy;
  uint32_t message;  // the one that it carries
};

// This rank's ends of the channels to and from one member.
struct Link {
  std::mutex send_mutex, receive_mutex;
  std::vector<Block> blocks;
};

struct Members {
  int id = 0;
  int me = 0;
  std::vector<int> ranks;  // of the world, by rank of the group
  std::string name;        // "ranks 0-2"
  uint64_t identity = 0;   // shared by the members, as ids are not
  Slot *own = nullptr;
  std::vector<Slot *> slots;  // by rank of the group
  uint64_t staging_bytes = 0;
  std::vector<std::unique_ptr<Link>> links;

  std::mutex mutex;  // held during a collective
  uint64_t step = 0;
  uint64_t sequence = 0;
  std::vector<Header> headers;  // of the call under way

  int size() const { return static_cast<int>(ranks.size()); }
};

// A call for error messages: "allReduce f32 ×64".
std::string describe(const Header &header, const std::vector<int> &ranks);
const char *kind_name(Collective kind);

// Allocates this rank's slot for a group of `size` ("ranks 0-2"); throws where the arena is full.
Slot *make_slot(Job &job, const std::string &group, int size);
// Finds the slots that all members publish under the group's identity; waits for those to come.
void join(Job &job, Members &members);

// All members arrive; returns when they have. Their writes before are seen after.
void step(Job &job, Members &members, const Pending &pending);
// The first step of a call: tells and compares what all members call.
void enter(Job &job, Members &members, const Header &header, const void *small, size_t small_bytes,
           const Pending &pending);

// What a waiting collective says.
class PendingCall : public Pending {
 public:
  PendingCall(const Members &members, const Header &header) : members_(members), header_(header) {}
  std::string op() const override;
  std::string what() const override;
  std::vector<int> missing() const override;

 private:
  const Members &members_;
  const Header &header_;
};

void run_collective(Job &job, Members &members, const CollectiveCall &call);
void run_send(Job &job, Members &members, const CollectiveCall &call);
void run_receive(Job &job, Members &members, const CollectiveCall &call);

}  // namespace zs::shm
