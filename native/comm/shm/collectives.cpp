// The collectives. Up to 4 KiB per rank travel in the slots, in one step. Buffers in the arenas are
// read (and all-reduced ones written) by the peers in place: a step, the work, a step. Others are
// copied piece by piece through staging areas; their halves alternate, so a piece costs one step.
#include <algorithm>
#include <cstring>

#include "members.h"
#include "reduce.h"

namespace zs::shm {
namespace {

int64_t round_down(int64_t count, int64_t multiple) { return std::max(count / multiple, int64_t{1}) * multiple; }

void copy(void *to, const void *from, int64_t bytes) {
  if (to != from && bytes > 0) std::memmove(to, from, static_cast<size_t>(bytes));
}

// One call under way.
class Operation {
 public:
  Operation(Job &job, Members &members, const CollectiveCall &call);
  void run();

 private:
  bool small() const { return input_count_ * element_ <= static_cast<int64_t>(kSmall); }
  bool direct() const;
  void run_alone();
  void run_in_pieces(int64_t piece);
  void all_reduce_in_arenas();
  void all_reduce_staged();
  void stage(int64_t begin, int64_t end, int half);
  void pull(int64_t begin, int64_t end, const char *const *sources);
  void locate(int64_t begin, int64_t end, int half, const char **sources) const;
  char *base(int m) const { return job_.base(members_.ranks[static_cast<size_t>(m)]); }
  char *staging(int m, int quarter) const;
  const Header &header(int m) const { return members_.headers[static_cast<size_t>(m)]; }
  // Elements of a chunk of `count` that one member reduces, in whole cache lines.
  int64_t chunk(int64_t count) const;

  Job &job_;
  Members &members_;
  const CollectiveCall call_;
  const Collective kind_;
  const int n_, me_;
  const int64_t element_, line_;  // bytes of an element, elements of a cache line
  const char *input_;
  char *output_;
  int64_t input_count_, output_count_;
  bool gives_;     // this rank's input counts: not so for the receivers of a broadcast
  bool by_piece_;  // the input is one piece per member
  Header header_;
  PendingCall pending_;
};

Operation::Operation(Job &job, Members &members, const CollectiveCall &call)
    : job_(job), members_(members), call_(call), kind_(call.kind), n_(members.size()), me_(members.me),
      element_(static_cast<int64_t>(element_size(call.dtype))),
      line_(element_ > 0 ? static_cast<int64_t>(kLine) / element_ : 1),
      input_(static_cast<const char *>(call.input ? call.input : call.output)),
      output_(static_cast<char *>(call.output)), input_count_(call.count), output_count_(call.count),
      gives_(kind_ != Collective::broadcast || call.peer == me_),
      by_piece_(kind_ == Collective::reduce_scatter || kind_ == Collective::all_to_all),
      header_{}, pending_(members, header_) {
  if (kind_ == Collective::barrier) input_count_ = output_count_ = 0;
  if (by_piece_) input_count_ *= n_;
  if (kind_ == Collective::all_gather || kind_ == Collective::all_to_all) output_count_ *= n_;
  header_.sequence = ++members.sequence;
  header_.kind = static_cast<int32_t>(kind_);
  header_.tag = call.tag;
  if (kind_ != Collective::barrier) {
    header_.count = call.count;
    header_.dtype = call.dtype;
  }
  header_.root = kind_ == Collective::broadcast ? call.peer : 0;
  const bool sums = kind_ == Collective::all_reduce || kind_ == Collective::reduce_scatter;
  header_.average = sums && call.average ? 1 : 0;
  header_.input = job.arena().offset(input_, static_cast<size_t>(input_count_ * element_));
  header_.output = job.arena().offset(output_, static_cast<size_t>(output_count_ * element_));
}

void Operation::run() {
  if (n_ == 1) return run_alone();
  if (small()) {
    enter(job_, members_, header_, input_, gives_ ? static_cast<size_t>(input_count_ * element_) : 0, pending_);
    if (input_count_ == 0) return;
    const size_t parity = members_.step & 1;
    const char *sources[kMaxRanks];
    for (int m = 0; m < n_; ++m) {
      sources[m] = members_.slots[static_cast<size_t>(m)]->entries[parity].data;
      if (by_piece_) sources[m] += me_ * call_.count * element_;
    }
    return pull(0, call_.count, sources);
  }
  enter(job_, members_, header_, nullptr, 0, pending_);
  if (kind_ == Collective::all_reduce) {
    if (direct()) all_reduce_in_arenas();
    else all_reduce_staged();
  } else if (direct()) {
    run_in_pieces(call_.count);
  } else {
    const auto half = static_cast<int64_t>(members_.staging_bytes / 4) / element_;
    run_in_pieces(round_down(by_piece_ ? half / n_ : half, line_));
  }
  step(job_, members_, pending_);  // nobody reads this rank's buffers any more
}

void Operation::run_alone() {
  copy(output_, input_, input_count_ * element_);
}

bool Operation::direct() const {
  if (kind_ == Collective::broadcast) return header(call_.peer).input >= 0;
  for (const Header &h : members_.headers) {
    if (h.input < 0 || (kind_ == Collective::all_reduce && h.output < 0)) return false;
  }
  return true;
}

// Quarters of the staging area: two halves for inputs, two for sums.
char *Operation::staging(int m, int quarter) const {
  return base(m) + members_.slots[static_cast<size_t>(m)]->staging +
         static_cast<size_t>(quarter) * (members_.staging_bytes / 4);
}

int64_t Operation::chunk(int64_t count) const {
  const int64_t even = (count + n_ - 1) / n_;
  return (even + line_ - 1) / line_ * line_;
}

// Copies elements [begin, end) of the input (of each of its pieces) where peers can read them.
void Operation::stage(int64_t begin, int64_t end, int half) {
  if (!gives_ || header_.input >= 0) return;
  char *to = staging(me_, half);
  const int64_t bytes = (end - begin) * element_;
  for (int m = 0; m < (by_piece_ ? n_ : 1); ++m) {
    copy(to + m * bytes, input_ + (m * call_.count + begin) * element_, bytes);
  }
}

// Where elements [begin, end) of what this rank reads from each member lie.
void Operation::locate(int64_t begin, int64_t end, int half, const char **sources) const {
  const int64_t piece = by_piece_ ? me_ : 0;
  for (int m = 0; m < n_; ++m) {
    const int64_t input = header(m).input;
    sources[m] = input >= 0 ? base(m) + input + (piece * call_.count + begin) * element_
                            : staging(m, half) + piece * (end - begin) * element_;
  }
}

void Operation::pull(int64_t begin, int64_t end, const char *const *sources) {
  const int64_t bytes = (end - begin) * element_;
  char *output = output_ + begin * element_;
  switch (kind_) {
    case Collective::all_reduce:
    case Collective::reduce_scatter: {
      void *destination = output;
      reduce(call_.dtype, &destination, 1, reinterpret_cast<const void *const *>(sources), n_, end - begin,
             call_.average);
      break;
    }
    case Collective::broadcast:
      copy(output, me_ == call_.peer ? input_ + begin * element_ : sources[call_.peer], bytes);
      break;
    default:  // all_gather, all_to_all: each begins with its neighbour, so that not all read one rank
      for (int i = 1; i <= n_; ++i) {
        const int m = (me_ + i) % n_;
        copy(output + m * call_.count * element_, sources[m], bytes);
      }
  }
}

// All but all_reduce; `piece` elements at a time, all at once where every input is in an arena.
void Operation::run_in_pieces(int64_t piece) {
  const bool staged = !direct();
  const char *sources[kMaxRanks];
  int half = 0;
  for (int64_t begin = 0; begin < call_.count; begin += piece, half ^= 1) {
    const int64_t end = std::min(begin + piece, call_.count);
    if (staged) {
      stage(begin, end, half);
      step(job_, members_, pending_);
    }
    locate(begin, end, half, sources);
    pull(begin, end, sources);
  }
}

// Each member sums its chunk over all inputs and writes it into all outputs.
void Operation::all_reduce_in_arenas() {
  const int64_t begin = std::min(me_ * chunk(call_.count), call_.count);
  const int64_t end = std::min(begin + chunk(call_.count), call_.count);
  const void *sources[kMaxRanks];
  void *destinations[kMaxRanks];
  for (int m = 0; m < n_; ++m) {
    sources[m] = base(m) + header(m).input + begin * element_;
    destinations[m] = base(m) + header(m).output + begin * element_;
  }
  reduce(call_.dtype, destinations, n_, sources, n_, end - begin, call_.average);
}

// The same piece by piece: sums go to the summing member's staging area, from where all copy them.
// While a piece is summed the next one is staged, so both are ready after one step.
void Operation::all_reduce_staged() {
  const int64_t piece = round_down(static_cast<int64_t>(members_.staging_bytes / 4) / element_, line_);
  const char *sources[kMaxRanks];
  stage(0, std::min(piece, call_.count), 0);
  step(job_, members_, pending_);
  int half = 0;
  for (int64_t begin = 0; begin < call_.count; begin += piece, half ^= 1) {
    const int64_t end = std::min(begin + piece, call_.count), count = end - begin, each = chunk(count);
    const int64_t mine = std::min(me_ * each, count);
    locate(begin, end, half, sources);
    for (int m = 0; m < n_; ++m) sources[m] += mine * element_;
    void *sums = staging(me_, 2 + half);
    reduce(call_.dtype, &sums, 1, reinterpret_cast<const void *const *>(sources), n_,
           std::min(each, count - mine), call_.average);
    if (end < call_.count) stage(end, std::min(end + piece, call_.count), half ^ 1);
    step(job_, members_, pending_);
    for (int i = 1; i <= n_; ++i) {
      const int m = (me_ + i) % n_;
      const int64_t at = std::min(m * each, count);
      copy(output_ + (begin + at) * element_, staging(m, 2 + half), std::min(each, count - at) * element_);
    }
  }
}

}  // namespace

void run_collective(Job &job, Members &members, const CollectiveCall &call) {
  const std::lock_guard<std::mutex> lock(members.mutex);
  Operation(job, members, call).run();
}

}  // namespace zs::shm
