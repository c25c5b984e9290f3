// Messages in one direction between two ranks with a device each, over a communicator of their own. A send between
// devices ends only beside its receive, and a pipeline relies on sends that hold nothing up. So a send is a copy into a
// block of the link, in the order of the caller's stream; the link's thread does the rest, on the link's own stream.
//
// Before that each message is agreed upon through the host: the sender announces it, once what makes it is launched;
// the receiver compares that with what it expects, says that it is ready, and launches. So nothing that is launched on
// a device waits for something that is not: no order of messages, computations and waits of the host can stop a
// pipeline that would run with sends of no duration, and where a rank is missing the host's time-out says which.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../../backend/collectives.h"
#include "../group.h"

namespace zs {

class Link {
 public:
  struct Ends {
    ProcessGroup *host;  // outlives the link
    const zs_backend *backend;
    int group;    // of the host: the two ranks alone
    int peer;     // the other's rank in it
    bool sends;   // this rank
    std::string name;
  };
  // `fail` is told of what goes wrong on the link's thread. Owns the communicator, which is made.
  using Fail = std::function<void(const CommError &)>;
  Link(Ends ends, void *communicator, Fail fail);
  ~Link();
  Link(const Link &) = delete;
  Link &operator=(const Link &) = delete;

  // The first message, by both ends at once: it makes the connections, which allocates.
  void connect();
  void finish();  // what was sent is delivered, or has failed
  void run(const CollectiveCall &call);  // a send or a receive; throws CommError
  void *communicator() const { return communicator_; }
  const std::string &name() const { return ends_.name; }

 private:
  struct Block {
    void *data = nullptr;
    size_t bytes = 0;
    bool busy = false;
  };
  struct Message {
    int64_t words[3];  // tag, count, dtype
    Block *block;      // nullptr: of no elements
    void *copied;      // event
  };
  void send(const CollectiveCall &call);
  void receive(const CollectiveCall &call);
  Block *take(size_t bytes);
  void give_back(Block *block);
  void work();
  void deliver(const Message &message);
  void exchange(int kind, const Message &message, void *data, const zs_stream *stream);
  void tell(Collective kind, void *words, int64_t count);
  void check(int32_t status, const char *error) const;

  const Ends ends_;
  const zs_collectives &collectives_;
  void *const communicator_;
  const Fail fail_;

  // The sender's.
  zs_stream stream_ = {};
  std::mutex lock_;
  std::condition_variable moved_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::deque<Message> queue_;  // the first one is under way
  std::unique_ptr<CommError> failed_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace zs
