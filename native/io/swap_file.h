// A file of fixed size to which ranges of memory are written and from which they are read back. Direct I/O where the
// file system has it; blocks in flight through io_uring, else through threads. Its space is taken, and its name gone, as
// soon as it is open: a full disk is found at the start, and nothing stays behind, however the process ends.
// One caller at a time. All throw Error: IO where the disk is at fault.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../core/error.h"
#include "crew.h"
#include "uring.h"

namespace zs {

inline constexpr int64_t kDiskPage = 4096;  // direct I/O wants memory, offset and size in multiples of it

struct SwapOptions {
  int64_t block_size = 1 << 20;
  int queue_depth = 8;  // blocks in flight, per thread
  int threads = 1;
  bool single_submit = false;  // blocks are handed over one by one
  bool overlap_events = true;  // new blocks follow as others are done; false: batch after batch
  bool allow_uring = true;     // these two are for tests and for comparison
  bool allow_direct = true;
};

// Any offset and size; ranges of one write must not share a page.
struct SwapRange {
  int64_t offset;
  char *data;
  int64_t bytes;
};

class SwapFile {
 public:
  SwapFile(const std::string &path, int64_t bytes, const SwapOptions &options);
  ~SwapFile();
  SwapFile(const SwapFile &) = delete;
  SwapFile &operator=(const SwapFile &) = delete;

  void transfer(bool write, const std::vector<SwapRange> &ranges);

  const std::string &path() const { return path_; }
  int64_t bytes() const { return bytes_; }
  int descriptor() const { return fd_; }
  bool direct() const { return direct_; }
  bool uring() const { return uring_; }
  const std::string &note() const { return note_; }  // why something slower is used; empty: nothing is

 private:
  struct Block;
  struct Lane;
  struct Transfer;

  void open_file();
  void take_space();
  void choose_engine();
  bool ring_works(Uring *ring, std::string *why);
  std::vector<Block> cut(const std::vector<SwapRange> &ranges) const;
  char *buffer_of(Lane &lane, size_t slot) const;
  void prepare(bool write, Block &block, char *buffer) const;
  static void finish(bool write, const Block &block);
  void move(bool write, const Block &block, int64_t from) const;
  void work_by_ring(Transfer &transfer, Lane &lane);
  void work_by_thread(Transfer &transfer, Lane &lane);
  void abandon(Transfer &transfer, Lane &lane, size_t in_flight, int error);
  [[noreturn]] void failed(bool write, int64_t offset, int64_t bytes, int64_t moved, int error) const;
  void add_note(const std::string &text) { note_ += (note_.empty() ? "" : "; ") + text; }

  const std::string path_, folder_;
  const int64_t bytes_;
  const SwapOptions options_;
  int fd_ = -1;
  bool direct_ = false;
  bool uring_ = false;
  std::string note_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::unique_ptr<Crew> crew_;
};

}  // namespace zs
