// Collectives between real processes against a serial oracle, bit for bit: every kind and element type, sizes from
// none to more than the staging areas, buffers in the arena and elsewhere, in place, sub-groups, several threads.
#include <cmath>
#include <thread>

#include "processes.h"

namespace {

using namespace zs::test;
using zs::Collective;
using zs::CollectiveCall;
using zs::ProcessGroup;

constexpr int kDtypes[] = {ZS_F32, ZS_BF16, ZS_F16, ZS_I64, ZS_I32, ZS_U8};
constexpr double kTimeout = 60;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

uint64_t mixed(uint64_t a, uint64_t b = 0, uint64_t c = 0) {
  uint64_t x = a * 0x9e3779b97f4a7c15 + b * 0xbf58476d1ce4e5b9 + c * 0x94d049bb133111eb + 1;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

size_t bytes_of(int dtype) {
  return dtype == ZS_I64 ? 8 : dtype == ZS_U8 ? 1 : dtype == ZS_BF16 || dtype == ZS_F16 ? 2 : 4;
}

// The oracle's own conversions, by arithmetic: they share nothing with the library's.
float decoded(int dtype, const char *from) {
  uint16_t half = 0;
  if (dtype == ZS_F32) {
    float value;
    memcpy(&value, from, 4);
    return value;
  }
  memcpy(&half, from, 2);
  const int exponent_bits = dtype == ZS_F16 ? 5 : 8, fraction_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int exponent = (half & 0x7fff) >> fraction_bits, fraction = half & ((1 << fraction_bits) - 1);
  double value = exponent == 0 ? ldexp(fraction, 1 - bias - fraction_bits)
                               : ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
  if (exponent == top) value = INFINITY;  // the tests have no NaN
  return static_cast<float>(half & 0x8000 ? -value : value);
}

void encode(int dtype, float value, char *to) {
  if (dtype == ZS_F32) {
    memcpy(to, &value, 4);
    return;
  }
  const int exponent_bits = dtype == ZS_F16 ? 5 : 8, fraction_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const double magnitude = fabs(static_cast<double>(value));
  int exponent = magnitude > 0 ? std::max(ilogb(magnitude), 1 - bias) : 1 - bias;
  double fraction = std::isinf(magnitude) ? 0 : nearbyint(ldexp(magnitude, fraction_bits - exponent));
  if (fraction >= 2 << fraction_bits) {
    fraction /= 2;
    exponent++;
  }
  int bits = static_cast<int>(fraction);
  if (bits >= 1 << fraction_bits) bits += (exponent + bias - 1) << fraction_bits;
  if (std::isinf(magnitude) || exponent > bias) bits = top << fraction_bits;
  const auto half = static_cast<uint16_t>(bits | (std::signbit(value) ? 0x8000 : 0));
  memcpy(to, &half, 2);
}

// What rank `rank` gives to call `call`.
std::vector<char> input_of(int dtype, int64_t count, uint64_t call, int rank) {
  const size_t element = bytes_of(dtype);
  std::vector<char> data(static_cast<size_t>(count) * element);
  const uint64_t seed = mixed(call, static_cast<uint64_t>(rank));
  for (size_t i = 0; i < static_cast<size_t>(count); i++) {
    const uint64_t bits = mixed(seed, i);
    char *to = data.data() + i * element;
    if (dtype == ZS_F32 || dtype == ZS_BF16 || dtype == ZS_F16) {
      const double fraction = static_cast<double>(bits >> 40) * 0x1p-24 - 0.5;
      encode(dtype, static_cast<float>(ldexp(fraction, static_cast<int>(bits % 19) - 2)), to);
    } else {
      memcpy(to, &bits, element);
    }
  }
  return data;
}

struct Plan {
  Collective kind;
  int dtype;
  int64_t count;
  int root;
  bool average;
  uint64_t id;
};

int64_t input_count(const Plan &plan, int64_t size) {
  const bool pieces = plan.kind == Collective::reduce_scatter || plan.kind == Collective::all_to_all;
  return plan.count * (pieces ? size : 1);
}

int64_t output_count(const Plan &plan, int64_t size) {
  const bool pieces = plan.kind == Collective::all_gather || plan.kind == Collective::all_to_all;
  return plan.count * (pieces ? size : 1);
}

// Σ over the ranks, in their order: floats in f32 and rounded once, integers exact.
void add_up(const Plan &plan, const std::vector<std::vector<char>> &inputs, size_t begin, std::vector<char> &output) {
  const size_t element = bytes_of(plan.dtype);
  for (size_t i = 0; i < static_cast<size_t>(plan.count); i++) {
    const size_t from = (begin + i) * element;
    if (plan.dtype == ZS_I64 || plan.dtype == ZS_I32) {
      uint64_t sum = 0;
      for (const auto &input : inputs) {
        uint64_t term = 0;
        memcpy(&term, input.data() + from, element);
        sum += term;
      }
      memcpy(output.data() + i * element, &sum, element);
      continue;
    }
    float sum = decoded(plan.dtype, inputs[0].data() + from);
    for (size_t r = 1; r < inputs.size(); r++) sum += decoded(plan.dtype, inputs[r].data() + from);
    encode(plan.dtype, plan.average ? sum / static_cast<float>(inputs.size()) : sum, output.data() + i * element);
  }
}

std::vector<char> expected(const Plan &plan, const std::vector<std::vector<char>> &inputs, size_t me) {
  const size_t element = bytes_of(plan.dtype), piece = static_cast<size_t>(plan.count) * element;
  std::vector<char> output(static_cast<size_t>(output_count(plan, static_cast<int64_t>(inputs.size()))) * element);
  for (size_t m = 0; m < inputs.size() && piece > 0; m++) {
    if (plan.kind == Collective::all_gather) memcpy(output.data() + m * piece, inputs[m].data(), piece);
    if (plan.kind == Collective::all_to_all) memcpy(output.data() + m * piece, inputs[m].data() + me * piece, piece);
  }
  if (plan.kind == Collective::broadcast) output = inputs[static_cast<size_t>(plan.root)];
  if (plan.kind == Collective::all_reduce) add_up(plan, inputs, 0, output);
  if (plan.kind == Collective::reduce_scatter) add_up(plan, inputs, me * static_cast<size_t>(plan.count), output);
  return output;
}

// Memory between two guards, in the arena or not, whole cache lines or not.
class Buffer {
 public:
  Buffer(ProcessGroup &group, size_t bytes, bool arena, size_t shift)
      : group_(group), bytes_(bytes), whole_(bytes + shift + 2 * kGuard), arena_(arena) {
    base_ = static_cast<char *>(arena ? group.arena_allocate(whole_) : malloc(whole_));
    CHECK(base_);
    memset(base_, 0x5a, whole_);
    data_ = base_ + kGuard + shift;
  }
  ~Buffer() {
    for (char *at = base_; at < base_ + whole_; at++)
      if (at < data_ || at >= data_ + bytes_) CHECK(*at == 0x5a);
    if (arena_) group_.arena_release(base_, whole_);
    else free(base_);
  }
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  char *data() const { return data_; }

 private:
  static constexpr size_t kGuard = 64;
  ProcessGroup &group_;
  size_t bytes_, whole_;
  bool arena_;
  char *base_, *data_;
};

enum class Place { staged, arena, in_place_staged, in_place_arena };

// One call: this rank's buffers lie where `place` says; checks output, input and guards.
void check_call(ProcessGroup &group, int id, const std::vector<int> &ranks, int rank, const Plan &plan, Place place) {
  const auto size = static_cast<int64_t>(ranks.size());
  size_t me = 0;
  while (ranks[me] != rank) me++;
  std::vector<std::vector<char>> inputs;
  for (int r : ranks) inputs.push_back(input_of(plan.dtype, input_count(plan, size), plan.id, r));
  const std::vector<char> wanted = expected(plan, inputs, me);
  const std::vector<char> &given = inputs[me];
  const bool arena = place == Place::arena || place == Place::in_place_arena;
  const bool in_place = place >= Place::in_place_staged && plan.kind != Collective::all_to_all;
  const size_t piece = static_cast<size_t>(plan.count) * bytes_of(plan.dtype);
  const size_t shift = bytes_of(plan.dtype) * (mixed(plan.id, 7) % 3);

  Buffer first(group, std::max(given.size(), in_place ? wanted.size() : 0), arena, shift);
  Buffer second(group, in_place ? 0 : wanted.size(), arena, shift);
  char *input = first.data(), *output = in_place ? first.data() : second.data();
  if (in_place && plan.kind == Collective::all_gather) input += me * piece;
  if (in_place && plan.kind == Collective::reduce_scatter) output += me * piece;
  if (!given.empty()) memcpy(input, given.data(), given.size());
  CollectiveCall call{plan.kind, id, output, input, plan.count, plan.dtype, plan.root, 0, plan.average};
  if (in_place && input == output && plan.id % 2) call.input = nullptr;
  group.run(call);
  if (!wanted.empty() && memcmp(output, wanted.data(), wanted.size()) != 0) {
    fprintf(stderr, "call %llu: kind %d, dtype %d, count %lld, place %d, rank %d of %lld%s\n",
            static_cast<unsigned long long>(plan.id), static_cast<int>(plan.kind), plan.dtype,
            static_cast<long long>(plan.count), static_cast<int>(place), rank, static_cast<long long>(size),
            plan.average ? ", averaged" : "");
    exit(1);
  }
  if (!in_place && !given.empty()) CHECK(memcmp(input, given.data(), given.size()) == 0);
}

bool sums(Collective kind) { return kind == Collective::all_reduce || kind == Collective::reduce_scatter; }

constexpr Collective kKinds[] = {Collective::all_reduce, Collective::reduce_scatter, Collective::all_gather,
                                 Collective::broadcast, Collective::all_to_all};

// Every kind × type × size × place; all ranks have their buffers in the same kind of place.
void every_collective_gives_the_oracle_bits(int num_ranks) {
  run_ranks(num_ranks, [](Rank &self) {
    self.connect(kTimeout);
    std::vector<int> world;
    for (int r = 0; r < self.ranks; r++) world.push_back(r);
    uint64_t id = 0;
    for (Collective kind : kKinds)
      for (int dtype : kDtypes)
        for (int64_t count : {0, 1, 5, 333, 2049, 9001})
          for (Place place : {Place::staged, Place::arena, Place::in_place_staged, Place::in_place_arena})
            for (bool average : {false, true}) {
              if ((sums(kind) && dtype == ZS_U8) || (average && (!sums(kind) || dtype >= ZS_I32))) continue;
              const Plan plan{kind, dtype, count, static_cast<int>(id) % self.ranks, average, ++id};
              check_call(*self.group, 0, world, self.rank, plan, place);
            }
    // More than the staging areas (8 MiB) hold.
    for (Collective kind : kKinds)
      for (Place place : {Place::staged, Place::in_place_staged}) {
        const bool whole = kind == Collective::all_reduce || kind == Collective::broadcast;
        const int64_t count = ((int64_t{5} << 18) + 77) / (whole ? 1 : self.ranks);
        check_call(*self.group, 0, world, self.rank, {kind, ZS_I64, count, 1, false, ++id}, place);
      }
    check_call(*self.group, 0, world, self.rank, {kKinds[0], ZS_F32, (int64_t{9} << 18) + 77, 0, true, ++id}, Place::staged);
  });
}

// Several threads use the arena again and again, in an order that a peer saw to. TSan cannot see that: it gets none.
#ifdef __SANITIZE_THREAD__
constexpr Place kPlaces[] = {Place::staged, Place::in_place_staged};
#else
constexpr Place kPlaces[] = {Place::staged, Place::in_place_staged, Place::arena, Place::in_place_arena};
#endif

// Calls drawn at random, the same for all members; where a rank has its buffers is its own affair.
void random_calls(ProcessGroup &group, int id, const std::vector<int> &ranks, int rank, uint64_t seed, int num_calls) {
  for (int i = 0; i < num_calls; i++) {
    const uint64_t bits = mixed(seed, static_cast<uint64_t>(i)), own = mixed(bits, 99, static_cast<uint64_t>(rank));
    Plan plan{kKinds[bits % 5], kDtypes[bits / 5 % 6], 0, 0, false, bits};
    if (sums(plan.kind) && plan.dtype == ZS_U8) plan.dtype = ZS_BF16;
    const int64_t limits[] = {4, 600, 3000, 20000};
    plan.count = static_cast<int64_t>(mixed(bits, 1) % static_cast<uint64_t>(limits[bits / 30 % 4]));
    plan.root = static_cast<int>(mixed(bits, 2) % ranks.size());
    plan.average = sums(plan.kind) && plan.dtype < ZS_I32 && bits / 120 % 2;
    check_call(group, id, ranks, rank, plan, kPlaces[own % std::size(kPlaces)]);
  }
}

bool has(const std::vector<int> &ranks, int rank) {
  return std::find(ranks.begin(), ranks.end(), rank) != ranks.end();
}

// Groups in any order of ranks, of one rank, and the same ranks twice; used one after the other, then all at once.
void sub_groups_work_apart_and_at_once() {
  const std::vector<std::vector<int>> groups = {{0, 1, 2, 3}, {2, 0}, {1, 3}, {3, 2, 1}, {0, 1, 2, 3}, {2, 0}, {2}};
  run_ranks(4, [&groups](Rank &self) {
    self.connect(kTimeout);
    std::vector<int> ids(groups.size(), -1);
    for (size_t g = 0; g < groups.size(); g++)
      if (has(groups[g], self.rank)) ids[g] = self.group->group(groups[g]);
    for (size_t g = 0; g < groups.size(); g++)
      if (ids[g] >= 0) random_calls(*self.group, ids[g], groups[g], self.rank, g, 60);
    std::vector<std::thread> threads;
    for (size_t g = 0; g < groups.size(); g++)
      if (ids[g] >= 0)
        threads.emplace_back([&, g] { random_calls(*self.group, ids[g], groups[g], self.rank, 100 + g, 60); });
    for (std::thread &thread : threads) thread.join();
  });
}

CollectiveCall message(Collective kind, void *data, int64_t count, int peer, int64_t tag, int dtype = ZS_F32) {
  CollectiveCall call{kind, 0, nullptr, nullptr, count, dtype, peer, tag, false};
  if (kind == Collective::send) call.input = data;
  else call.output = data;
  return call;
}

// All send first: sixteen messages may be under way. Sizes from none to a megabyte, so that blocks are used again.
void messages_go_round_a_ring(int num_ranks) {
  run_ranks(num_ranks, [](Rank &self) {
    self.connect(kTimeout);
    const int next = (self.rank + 1) % self.ranks, before = (self.rank + self.ranks - 1) % self.ranks;
    for (uint64_t round = 0; round < 8; round++) {
      const auto size = [&](uint64_t i) { return static_cast<int64_t>(mixed(round, i) % (i % 4 ? 3000 : 300000)) * (i != 5); };
      for (uint64_t i = 0; i < 16; i++) {
        std::vector<char> data = input_of(ZS_F32, size(i), round * 16 + i, self.rank);
        self.group->run(message(Collective::send, data.data(), size(i), next, static_cast<int64_t>(i)));
      }
      for (uint64_t i = 0; i < 16; i++) {
        std::vector<char> data(static_cast<size_t>(size(i)) * 4 + 1);
        self.group->run(message(Collective::recv, data.data(), size(i), before, static_cast<int64_t>(i)));
        data.pop_back();
        CHECK(data == input_of(ZS_F32, size(i), round * 16 + i, before));
      }
    }
  });
}

// A fast sender waits for a slow receiver; collectives go on beside the messages.
void messages_and_collectives_at_once() {
  run_ranks(2, [](Rank &self) {
    self.connect(kTimeout);
    std::thread other([&] { random_calls(*self.group, 0, {0, 1}, self.rank, 5, 100); });
    for (uint64_t i = 0; i < 300; i++) {
      const auto count = static_cast<int64_t>(mixed(i) % 2000);
      std::vector<char> wanted = input_of(ZS_I64, count, i, 0), data(wanted.size() + 1);
      if (self.rank == 0) self.group->run(message(Collective::send, wanted.data(), count, 1, 3, ZS_I64));
      else self.group->run(message(Collective::recv, data.data(), count, 0, 3, ZS_I64));
      data.pop_back();
      CHECK(self.rank == 0 || data == wanted);
    }
    other.join();
  });
}

void barriers_separate(int num_ranks) {
  run_ranks(num_ranks, [](Rank &self) {
    self.connect(kTimeout);
    CollectiveCall barrier{};
    barrier.kind = Collective::barrier;
    for (int i = 1; i <= 200; i++) {
      self.mark(i);
      self.group->run(barrier);
      for (int r = 0; r < self.ranks; r++) CHECK(self.board.mark[r].load() >= i);
      self.group->run(barrier);
    }
  });
}

}  // namespace

int main() {
  for (int num_ranks : {2, 3, 4}) {
    if (num_ranks < 4 || !kSanitized) every_collective_gives_the_oracle_bits(num_ranks);
    messages_go_round_a_ring(num_ranks);
    barriers_separate(num_ranks);
    run_ranks(num_ranks, [](Rank &self) {
      self.connect(kTimeout);
      std::vector<int> world;
      for (int r = 0; r < self.ranks; r++) world.push_back(r);
      random_calls(*self.group, 0, world, self.rank, 1, 300);
    });
  }
  sub_groups_work_apart_and_at_once();
  messages_and_collectives_at_once();
  puts("comm_test: ok");
  return 0;
}
