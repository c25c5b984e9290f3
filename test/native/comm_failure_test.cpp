// What a process group does when something goes wrong, with real processes: calls that do not match, ranks that die,
// leave, hang or never come, aborts, facts of others. Every rank must end soon, with an error that says who and where.
#include <thread>

#include "processes.h"

namespace {

using namespace zs::test;
using zs::Collective;
using zs::CollectiveCall;

constexpr double kLong = 60, kSoon = 5;  // seconds
constexpr int64_t kLarge = 3 << 20;      // elements: more than the staging areas, some milliseconds

// A call with buffers of its own; what they hold does not matter here.
void run(Rank &self, Collective kind, int64_t count, int dtype = ZS_F32, int group = 0, int peer = 0, bool average = false) {
  static thread_local std::vector<char> input, output;
  const size_t bytes = static_cast<size_t>(count) * 8 * static_cast<size_t>(self.ranks) + 8;
  if (input.size() < bytes) {
    input.resize(bytes);
    output.resize(bytes);
  }
  self.group->run({kind, group, output.data(), input.data(), count, dtype, peer, 7, average});
}

void contains(const std::string &text, const std::string &part) {
  if (text.find(part) != std::string::npos) return;
  fprintf(stderr, "'%s' lacks '%s'\n", text.c_str(), part.c_str());
  exit(1);
}

// Every rank but `but` threw this error, whose text has all these parts.
void all_threw(Processes &ranks, const char *code, const std::vector<std::string> &parts, int but = -1) {
  const std::vector<int> statuses = ranks.wait();
  for (int r = 0; r < static_cast<int>(statuses.size()); r++) {
    if (r == but) continue;
    if (statuses[static_cast<size_t>(r)] != kThrew) fprintf(stderr, "rank %d ended with %d\n", r, statuses[static_cast<size_t>(r)]);
    CHECK(statuses[static_cast<size_t>(r)] == kThrew);
    if (ranks.code(r) != code) fprintf(stderr, "%s: %s\n", ranks.code(r).c_str(), ranks.message(r).c_str());
    CHECK(ranks.code(r) == code);
    for (const std::string &part : parts) contains(ranks.message(r), part);
  }
}

struct Call {
  Collective kind;
  int64_t count;
  int dtype;
  int root;
  bool average;
};

void calls_that_differ_are_told_by_rank() {
  const Call usual = {Collective::all_reduce, 4, ZS_F32, 0, false}, large = {Collective::all_reduce, kLarge, ZS_F32, 0, false};
  const Call gives = {Collective::broadcast, 4, ZS_F32, 0, false};
  const struct {
    Call others, one;
    const char *others_text, *one_text;
  } cases[] = {
      {usual, {Collective::barrier, 0, ZS_F32, 0, false}, "ranks 0, 2 called allReduce f32 ×4", "rank 1 called barrier"},
      {usual, {Collective::all_gather, 4, ZS_F32, 0, false}, "ranks 0, 2 called allReduce f32 ×4", "rank 1 called allGather f32 ×4"},
      {usual, {Collective::all_reduce, 5, ZS_F32, 0, false}, "ranks 0, 2 called allReduce f32 ×4", "rank 1 called allReduce f32 ×5"},
      {usual, {Collective::all_reduce, 4, ZS_BF16, 0, false}, "called allReduce f32 ×4", "rank 1 called allReduce bf16 ×4"},
      {usual, {Collective::all_reduce, 4, ZS_F32, 0, true}, "ranks 0, 2 called allReduce f32 ×4 tag 7,", "×4 averaged"},
      {gives, {Collective::broadcast, 4, ZS_F32, 2, false}, "ranks 0, 2 called broadcast f32 ×4 from rank 0", "×4 from rank 2"},
      {large, usual, "ranks 0, 2 called allReduce f32 ×3145728", "rank 1 called allReduce f32 ×4"},
  };
  for (const auto &c : cases) {
    Processes ranks(3, [&c](Rank &self) {
      self.connect(kLong);
      for (int i = 0; i < 3; i++) run(self, Collective::all_reduce, 9);
      const Call &call = self.rank == 1 ? c.one : c.others;
      run(self, call.kind, call.count, call.dtype, 0, call.root, call.average);
    });
    all_threw(ranks, "COLLECTIVE_MISMATCH", {c.others_text, c.one_text, "group of ranks 0-2, sequence 4"});
  }
}

// In a sub-group too, and the ranks outside of it end as well, with the same words.
void calls_that_differ_in_a_sub_group_end_all() {
  Processes ranks(4, [](Rank &self) {
    self.connect(kLong);
    if (self.rank != 1) {
      const int id = self.group->group({3, 0, 2});
      run(self, Collective::barrier, 0, ZS_F32, id);
      run(self, Collective::reduce_scatter, self.rank == 3 ? 8 : 16, ZS_BF16, id);
    }
    run(self, Collective::all_reduce, 1);
  });
  all_threw(ranks, "COLLECTIVE_MISMATCH",
            {"[reduceScatter] group of ranks 3, 0, 2, sequence 2", "rank 3 called reduceScatter bf16 ×8",
             "ranks 0, 2 called reduceScatter bf16 ×16", "same order"});
}

void messages_that_differ_are_told() {
  Processes ranks(2, [](Rank &self) {
    self.connect(kLong);
    if (self.rank == 0) run(self, Collective::send, 10, ZS_F32, 0, 1);
    else run(self, Collective::recv, 11, ZS_F32, 0, 0);
    run(self, Collective::barrier, 0);
  });
  all_threw(ranks, "COLLECTIVE_MISMATCH", {"rank 1 called recv f32 ×11 tag 7 from rank 0", "rank 0 called send f32 ×10 tag 7 to rank 1"});
}

// The victim dies between two random instructions of a loop of collectives.
void a_killed_rank_is_named_within_seconds() {
  for (int round = 0; round < 12; round++) {
    const int num_ranks = 2 + round % 3, victim = round / 3 % num_ranks;
    const int64_t count = round % 2 ? 100 : kLarge / 4;
    Processes ranks(num_ranks, [&](Rank &self) {
      self.connect(kLong);
      for (;;) {
        run(self, Collective::all_reduce, count);
        run(self, Collective::all_gather, count / 8);
        self.mark(self.board.mark[self.rank].load() + 1);
      }
    });
    ranks.wait_for_mark(0, 2);
    rest(0.001 * round);
    ranks.signal(victim, SIGKILL);
    const double start = now();
    all_threw(ranks, "RANK_LOST", {"rank " + std::to_string(victim) + " (pid ", "died during all"}, victim);
    CHECK(now() - start < kSoon);
  }
}

// Ranks that are in a call already when another ends, or leaves in an orderly way, instead of coming.
void a_rank_that_ends_instead_of_coming_is_named() {
  enum End { exits, leaves, aborts };
  for (const End end : {exits, leaves, aborts}) {
    Processes ranks(3, [end](Rank &self) {
      self.connect(kLong);
      run(self, Collective::barrier, 0);
      if (self.rank != 2) return run(self, Collective::broadcast, kLarge, ZS_F32, 0, 2);
      rest(0.1);
      if (end == exits) _exit(9);
      if (end == aborts) raise(SIGTERM);
      self.group.reset();  // its process lives on
      for (const double end = now() + 2 * kSoon; self.board.code[0][0] == 0 && now() < end;) rest(0.01);
    });
    const double start = now();
    all_threw(ranks, "RANK_LOST",
              {"[broadcast] rank 2 (pid ", end == leaves ? "left the job before broadcast f32 ×3145728" : "died during broadcast f32 ×3145728",
               "sequence 2, group of ranks 0-2"}, 2);
    CHECK(now() - start < kSoon);
  }
}

void a_message_to_or_from_a_dead_rank_fails() {
  for (const bool sends : {false, true}) {
    Processes ranks(2, [sends](Rank &self) {
      self.connect(kLong);
      run(self, Collective::barrier, 0);
      if (self.rank == 1) _exit(0);
      if (!sends) run(self, Collective::recv, 10, ZS_F32, 0, 1);
      for (int i = 0; i < 17; i++) run(self, Collective::send, 10, ZS_F32, 0, 1);  // one more than may wait
    });
    all_threw(ranks, "RANK_LOST", {sends ? "[send] rank 1 " : "[recv] rank 1 ", "died during"}, 1);
  }
  // What was sent before is received nevertheless.
  run_ranks(2, [](Rank &self) {
    self.connect(kLong);
    if (self.rank == 0) run(self, Collective::send, kLarge, ZS_F32, 0, 1);
    else {
      self.wait_for_mark(0, 1);
      rest(0.05);
      run(self, Collective::recv, kLarge, ZS_F32, 0, 0);
    }
    self.mark(1);
  });
}

void a_rank_that_never_comes_is_named_after_the_timeout() {
  Processes ranks(4, [](Rank &self) {
    self.connect(1);
    run(self, Collective::barrier, 0);
    if (self.rank == 1 || self.rank == 3) rest(2);
    run(self, Collective::reduce_scatter, 5);
  });
  const std::vector<std::string> parts = {"[reduceScatter] timed out after 1", "ranks 1, 3 did not come to reduceScatter f32 ×5",
                                          "sequence 2, group of ranks 0-3"};
  all_threw(ranks, "COLLECTIVE_TIMEOUT", parts);

  // A stopped process is alive, but does not come.
  Processes stopped(2, [](Rank &self) {
    self.connect(1);
    for (int i = 0;; self.mark(++i)) run(self, Collective::all_reduce, 100);
  });
  stopped.wait_for_mark(0, 3);
  stopped.signal(1, SIGSTOP);
  while (stopped.code(0).empty()) rest(0.01);
  stopped.signal(1, SIGKILL);
  all_threw(stopped, "COLLECTIVE_TIMEOUT", {"rank 1 did not come to allReduce f32 ×100"}, 1);

  Processes groups(3, [](Rank &self) {
    self.connect(1);
    if (self.rank == 1) rest(2);
    self.group->group({0, 1, 2});
  });
  all_threw(groups, "COLLECTIVE_TIMEOUT", {"[commGroup] timed out after 1", "rank 1 did not come to create the group of ranks 0-2"});

  Processes connects(2, [](Rank &self) {
    self.create(1);
    const std::vector<std::string> facts = self.all_facts();
    if (self.rank == 0) self.group->connect(facts);
    rest(1.5);
  });
  all_threw(connects, "RENDEZVOUS", {"[commConnect]", "rank 1 did not come"}, 1);
}

// From another thread, of another rank, in the midst of a call; afterwards every call fails with it.
void an_abort_wakes_all_ranks() {
  Processes ranks(3, [](Rank &self) {
    self.connect(kLong);
    run(self, Collective::barrier, 0);
    if (self.rank != 2) {
      try {
        run(self, Collective::all_reduce, kLarge);
      } catch (const zs::CommError &error) {
        CHECK(error.code == "NOT_FINITE");
      }
      run(self, Collective::barrier, 0);
    }
    rest(0.1);
    std::thread other([&self] { self.group->abort({"NOT_FINITE", "the loss is no number"}); });
    other.join();
    self.group->abort({"IO", "what comes second does not count"});
    run(self, Collective::all_reduce, kLarge);
  });
  const double start = now();
  all_threw(ranks, "NOT_FINITE", {"the loss is no number"});
  CHECK(now() - start < kSoon);

  // Before the ranks are connected, too; the other finds its peer gone, or hears of it, as it comes.
  Processes early(2, [](Rank &self) {
    self.create(kLong);
    if (self.rank == 1) self.group->abort({"CONFIG", "wrong"});
    self.group->connect(self.all_facts());
    run(self, Collective::barrier, 0);
  });
  const std::vector<int> statuses = early.wait();
  CHECK(statuses[0] == kThrew && statuses[1] == kThrew && early.code(1) == "CONFIG");
}

// Nothing but the ranks of this job, world and host is connected to.
void facts_that_do_not_belong_are_refused() {
  const struct {
    std::function<void(std::string &)> change;
    const char *why;
  } cases[] = {
      {[](std::string &facts) { facts = "hello"; }, "damaged facts"},
      {[](std::string &facts) { facts.replace(facts.find("boot="), 6, "boot=x"); }, "one host only"},
      {[](std::string &facts) { facts.replace(facts.find("rank=1"), 6, "rank=0"); }, "these are facts of rank 0"},
      {[](std::string &facts) { facts.replace(facts.find("world=2"), 7, "world=3"); }, "it counts 3 ranks, this one 2"},
      {[](std::string &facts) { facts.replace(facts.find("job="), 5, "job=x"); }, "another job"},
      {[](std::string &facts) { facts.replace(facts.find("nonce="), 7, "nonce=x"); }, "of another job or another run"},
      {[](std::string &facts) { facts.replace(facts.find("version="), 9, "version=9"); }, "another version"},
      {[](std::string &facts) { facts.replace(facts.find("started="), 9, "started=9"); }, "is gone"},
  };
  for (const auto &c : cases) {
    Processes ranks(2, [&c](Rank &self) {
      self.create(kLong);
      std::vector<std::string> facts = self.all_facts();
      if (self.rank == 1) return self.wait_for_mark(0, 1);
      c.change(facts[1]);
      try {
        self.group->connect(facts);
      } catch (...) {
        self.mark(1);
        throw;
      }
    });
    all_threw(ranks, "RENDEZVOUS", {"[commConnect]", c.why}, 1);
  }
  Processes gone(2, [](Rank &self) {
    self.create(kLong);
    if (self.rank == 1) _exit(0);
    const std::vector<std::string> facts = self.all_facts();
    rest(0.1);
    self.group->connect(facts);
  });
  all_threw(gone, "RENDEZVOUS", {"rank 1", "is gone"}, 1);
}

void wrong_arguments_are_refused() {
  const struct {
    Call call;
    int group;
    const char *code, *text;
  } cases[] = {{{Collective::all_reduce, -1, ZS_F32, 0, false}, 0, "SHAPE", "count -1 is negative"},
               {{Collective::all_reduce, 4, 17, 0, false}, 0, "DTYPE", "no element type 17"},
               {{Collective::all_reduce, 4, ZS_U8, 0, false}, 0, "DTYPE", "cannot sum u8"},
               {{Collective::all_reduce, 4, ZS_I64, 0, true}, 0, "DTYPE", "cannot average i64"},
               {{Collective::broadcast, 4, ZS_F32, 2, false}, 0, "ARGUMENT", "no rank 2 in a group of 2"},
               {{Collective::barrier, 0, ZS_F32, 0, false}, 5, "ARGUMENT", "no group 5"}};
  for (const auto &c : cases) {
    Processes ranks(2, [&c](Rank &self) {
      self.connect(kLong);
      std::vector<float> data(8);
      self.group->run({c.call.kind, c.group, data.data(), data.data(), c.call.count, c.call.dtype, c.call.root, 0, c.call.average});
    });
    all_threw(ranks, c.code, {c.text});
  }
  Processes overlap(2, [](Rank &self) {
    self.connect(kLong);
    std::vector<float> data(16);
    self.group->run({Collective::all_reduce, 0, data.data(), data.data() + 3, 8, ZS_F32, 0, 0, false});
  });
  all_threw(overlap, "ARGUMENT", {"overlap"});
  for (const std::vector<int> &ranks : std::vector<std::vector<int>>{{0, 0}, {0, 1, 2}, {}}) {
    Processes groups(2, [&ranks](Rank &self) {
      self.connect(kLong);
      self.group->group(ranks);
    });
    all_threw(groups, "ARGUMENT", {"[commGroup]"});
  }
}

}  // namespace

int main() {
  calls_that_differ_are_told_by_rank();
  calls_that_differ_in_a_sub_group_end_all();
  messages_that_differ_are_told();
  a_killed_rank_is_named_within_seconds();
  a_rank_that_ends_instead_of_coming_is_named();
  a_message_to_or_from_a_dead_rank_fails();
  a_rank_that_never_comes_is_named_after_the_timeout();
  an_abort_wakes_all_ranks();
  facts_that_do_not_belong_are_refused();
  wrong_arguments_are_refused();
  puts("comm_failure_test: ok");
  return 0;
}
