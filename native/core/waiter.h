// Waits for the device on a thread beside a stream's, which so goes on launching: for what the stream was given up to
// an event, in order.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "device.h"

namespace zs {

class Waiter {
 public:
  // error: nullptr where all went well. Called on the waiter's thread; not at all once stop() was called.
  using After = std::function<void(const Error *error)>;
  explicit Waiter(DeviceStream &device) : device_(device) {}
  ~Waiter();
  void push(void *event, After after);  // owns the event
  void stop();                          // returns when its thread has ended

  // Pinned memory, for one read at a time each.
  char *take(size_t bytes);
  void give_back(char *data);

 private:
  struct Item {
    void *event;
    After after;
  };
  struct Block {
    char *data;
    size_t bytes;
    bool busy;
  };
  void loop();
  void wait(Item &item);

  DeviceStream &device_;
  std::mutex lock_;
  std::condition_variable moved_;
  std::deque<Item> items_;
  std::vector<Block> blocks_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace zs
