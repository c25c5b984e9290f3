// The pipeline's lists of all schedules (test/native/data/pipelines.txt, made by test/helpers/pipeline-lists.ts) on
// faked devices whose sends end only beside their receives: nobody waits for ever, whatever the host waits for between
// two computations, and every message is the right one, while memory is used again at once. Then what may go wrong.
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "device_world.h"

namespace {

using namespace zs::world_test;
using zs::Collective;

constexpr int64_t kCount = 64;

struct Pipeline {
  std::string name;
  std::vector<std::vector<std::string>> lists;  // by stage
};

std::vector<Pipeline> read_pipelines() {
  std::string path = __FILE__;
  std::ifstream file(path.substr(0, path.rfind('/')) + "/data/pipelines.txt");
  std::vector<Pipeline> all;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream head(line);
    Pipeline one;
    int stages = 0;
    head >> one.name >> stages;
    for (int s = 0; s < stages && std::getline(file, line); s++) {
      std::istringstream words(line);
      one.lists.emplace_back(std::istream_iterator<std::string>(words), std::istream_iterator<std::string>());
    }
    all.push_back(std::move(one));
  }
  CHECK(all.size() >= 20);
  return all;
}

struct Word {
  std::string kind;  // F B I W sf sb rf rb
  std::string at;    // chunk.microBatch
  int peer, message;
};

Word parse(const std::string &text) {
  size_t letters = text.find_first_of("0123456789"), colon = text.find(':');
  Word word{text.substr(0, letters), text.substr(letters, colon - letters), 0, 0};
  if (colon != std::string::npos) sscanf(text.c_str() + colon, ":%d:%d", &word.peer, &word.message);
  return word;
}

// What the host does behind each computation; waits_for_all: behind everything, and for all that was launched on the
// rank's device, as giving memory back and loading a kernel may: so nothing that is launched may wait for something that
// is not. (Sends that are launched without the receiver's word end this test.)
enum class Host { runs_ahead, waits, waits_for_all };

std::atomic<int> num_checked{0};

int32_t check_values(zs_call *call) {  // and then writes over them
  zs_tensor x = call->tensors[0];
  float wanted = static_cast<float>(call->scalars[0]);
  zs::fake::queue(static_cast<zs::fake::FakeStream *>(call->stream), [=] {
    float *values = zs::fake::floats(x.data, x.count);
    for (int64_t i = 0; i < x.count; i++) CHECK(values[i] == wanted);
    std::fill_n(values, x.count, -1.0f);
    num_checked++;
  });
  return ZS_OK;
}

void expect(zs::Runtime &runtime, int64_t handle, double value) {
  double packet[] = {ZS_OP_affine, 0, static_cast<double>(handle), 0, value, 0, 0, 0};
  runtime.run(packet);
}

void release(zs::Runtime &runtime, int64_t handle) {
  double packet[] = {static_cast<double>(handle)};
  runtime.free(packet);
}

// Both groups have a link for each direction in which a message goes, made in one order by all.
struct Groups {
  int activations, gradients;
};

Groups link_all(zs::Runtime &runtime, const Pipeline &pipeline, int rank) {
  std::vector<int> ranks;
  for (size_t r = 0; r < pipeline.lists.size(); r++) ranks.push_back(static_cast<int>(r));
  Groups groups{runtime.comm_group(ranks), runtime.comm_group(ranks)};
  std::set<std::tuple<int, int, int>> edges;
  for (size_t s = 0; s < pipeline.lists.size(); s++)
    for (const std::string &text : pipeline.lists[s]) {
      Word word = parse(text);
      if (word.kind == "sf" || word.kind == "sb") edges.insert({word.kind == "sb", static_cast<int>(s), word.peer});
    }
  for (auto [backward, from, to] : edges)
    if (rank == from || rank == to)
      CHECK(runtime.comm_link(backward ? groups.gradients : groups.activations, from, to));
  return groups;
}

void run_list(zs::Runtime &runtime, const Pipeline &pipeline, int rank, Host host, Groups groups) {
  std::map<std::string, std::pair<int64_t, int>> received;  // by f or b and place: the tensor, and its message
  for (const std::string &text : pipeline.lists[static_cast<size_t>(rank)]) {
    Word word = parse(text);
    char side = word.kind.back();
    int group = side == 'f' ? groups.activations : groups.gradients;
    if (word.kind[0] == 'r') {
      int64_t x = allocate(runtime, kCount);
      collective(runtime, Collective::recv, group, x, 0, word.peer, false, 4, word.message);
      received[side + word.at] = {x, word.message};
    } else if (word.kind[0] == 's') {
      int64_t x = allocate(runtime, kCount);
      set(runtime, x, word.message);
      collective(runtime, Collective::send, group, 0, x, word.peer, false, 1, word.message);
      if (word.message % 2) set(runtime, x, -2);  // at once
      release(runtime, x);
    } else {
      auto found = received.find((word.kind == "F" ? 'f' : 'b') + word.at);
      if (found != received.end() && word.kind != "W") {
        expect(runtime, found->second.first, found->second.second);
        release(runtime, found->second.first);
        received.erase(found);
      }
      int64_t other = allocate(runtime, kCount);  // whatever lies there now
      set(runtime, other, -3);
      release(runtime, other);
      if (host == Host::waits) runtime.synchronize_now(0);
    }
    if (host != Host::waits_for_all) continue;
    zs::test::rest(0.0003);  // for the threads that launch
    char error[ZS_ERROR_BYTES];
    zs::fake::synchronize(error);
  }
  CHECK(received.empty());
  runtime.synchronize_now(-1);
}

void every_schedule_runs_with_sends_that_wait_for_their_receives() {
  zs::fake::device.max_delay_microseconds = 50;
  for (const Pipeline &pipeline : read_pipelines()) {
    int size = static_cast<int>(pipeline.lists.size()), messages = 0;
    for (auto &list : pipeline.lists)
      for (const std::string &word : list) messages += word[0] == 'r';
    int before = network.num_messages;
    num_checked = 0;
    int links = 0;
    World(size).run(20, [&](zs::Runtime &runtime, int rank) {
      Groups groups = link_all(runtime, pipeline, rank);
      if (rank == 0) links = network.num_messages - before;  // of the first messages, at least
      for (Host host : {Host::runs_ahead, Host::waits, Host::waits_for_all})
        run_list(runtime, pipeline, rank, host, groups);
      runtime.comm_destroy();  // which delivers what is still on its way
    });
    CHECK(num_checked == 3 * messages && links > 0);
    CHECK(network.num_messages - before >= 2 * 3 * messages);  // all of them between devices
  }
  zs::fake::device.max_delay_microseconds = 0;
}

// Neither its computations nor its collectives wait for a message that nobody takes yet.
void a_send_holds_nothing_up() {
  std::atomic<bool> sent{false};
  World(2).run(20, [&](zs::Runtime &runtime, int rank) {
    CHECK(runtime.comm_link(0, 0, 1));
    int64_t x = allocate(runtime, kCount), y = allocate(runtime, kCount);
    if (rank == 0) {
      for (int i = 0; i < 40; i++) {
        set(runtime, x, i);
        collective(runtime, Collective::send, 0, 0, x, 1);
      }
      collective(runtime, Collective::all_reduce, 0, y, 0, 0);
      check_all(read(runtime, x, kCount), 39);
      check_all(read(runtime, y, kCount), 0);
      runtime.synchronize_now(-1);
      sent = true;
      return runtime.comm_destroy();  // which delivers them
    }
    collective(runtime, Collective::all_reduce, 0, y, 0, 0);
    while (!sent) zs::test::rest(0.01);
    for (int i = 0; i < 40; i++) {
      collective(runtime, Collective::recv, 0, x, 0, 0, false, 4);
      check_all(read(runtime, x, kCount, i % 5), i);
    }
    runtime.comm_destroy();
  });
}

void the_wrong_message_is_told_on_both_sides() {
  std::atomic<int> told{0};
  World(2).run(20, [&](zs::Runtime &runtime, int rank) {
    CHECK(runtime.comm_link(0, 0, 1));
    int64_t x = allocate(runtime, kCount), y = allocate(runtime, kCount);
    if (rank == 0) collective(runtime, Collective::send, 0, 0, x, 1, false, 1, 7);
    else collective(runtime, Collective::recv, 0, x, 0, 0, false, 4, 8);
    try {
      for (double end = zs::test::now() + 15; zs::test::now() < end;) {
        read(runtime, x, kCount, rank == 0 ? 0 : 4);
        zs::test::rest(0.01);
      }
    } catch (const zs::Error &error) {
      CHECK(error.code == "COLLECTIVE_MISMATCH" && error.message.find("tag 8") != std::string::npos &&
            error.message.find("tag 7") != std::string::npos);
      told++;
    }
    (void)y;
  });
  CHECK(told == 2);
}

// Where nobody sends, and where nobody takes what was sent: the one that waits says for whom.
void a_neighbour_that_does_not_come_is_named() {
  for (bool sends : {true, false}) {
    std::atomic<bool> told{false};
    World(2).run(1, [&](zs::Runtime &runtime, int rank) {
      CHECK(runtime.comm_link(0, 0, 1));
      int64_t x = allocate(runtime, kCount);
      runtime.synchronize_now(-1);
      if (rank == (sends ? 1 : 0)) {
        while (!told) zs::test::rest(0.01);
        return;
      }
      double start = zs::test::now();
      if (sends) collective(runtime, Collective::send, 0, 0, x, 1);
      else collective(runtime, Collective::recv, 0, x, 0, 0, false, 4);
      std::string code;
      while (code.empty() && zs::test::now() - start < 10) {
        try {
          read(runtime, x, kCount);
          zs::test::rest(0.01);
        } catch (const zs::Error &error) {
          code = error.code;
          CHECK(error.message.find(sends ? "rank 1" : "rank 0") != std::string::npos);
        }
      }
      CHECK(code == "COLLECTIVE_TIMEOUT");
      told = true;
    });
  }
}

// A receiver that is ready but whose device never comes to it: what is under way on the link is watched, too.
void a_message_that_is_stuck_between_devices_is_given_up() {
  std::atomic<int> told{0};
  World(2).run(1, [&](zs::Runtime &runtime, int rank) {
    CHECK(runtime.comm_link(0, 0, 1));
    int64_t x = allocate(runtime, kCount);
    runtime.synchronize_now(-1);
    if (rank == 1) {
      network.stuck = true;
      collective(runtime, Collective::recv, 0, x, 0, 0, false, 4);
    } else {
      collective(runtime, Collective::send, 0, 0, x, 1);
    }
    double start = zs::test::now();
    while (zs::test::now() - start < 10) {
      try {
        read(runtime, x, kCount, rank == 1 ? 4 : 0);
        zs::test::rest(0.01);
      } catch (const zs::Error &error) {
        CHECK(error.code == "COLLECTIVE_TIMEOUT" && error.message.find("messages from rank 0 to rank 1") != std::string::npos);
        told++;
        break;
      }
    }
  });
  network.stuck = false;
  CHECK(told == 2);
}

void without_collectives_there_is_no_link_and_messages_still_come() {
  one_device = true;
  int before = network.num_messages;
  World(2).run(20, [&](zs::Runtime &runtime, int rank) {
    CHECK(!runtime.comm_link(0, 0, 1));
    int64_t x = allocate(runtime, kCount);
    set(runtime, x, rank + 5);
    if (rank == 0) collective(runtime, Collective::send, 0, 0, x, 1);
    else collective(runtime, Collective::recv, 0, x, 0, 0, false, 4);
    check_all(read(runtime, x, kCount), 5);
    collective(runtime, Collective::barrier, 0, 0, 0, 0);  // nobody ends before the other has it
    runtime.synchronize_now(-1);
    try {
      runtime.comm_link(0, 1 - rank, 1 - rank);
      CHECK(false);
    } catch (const zs::Error &error) {
      CHECK(error.code == "ARGUMENT");
    }
  });
  CHECK(network.num_messages == before);
  one_device = false;
}

}  // namespace

int main() {
  kernels[ZS_OP_affine] = check_values;
  without_collectives_there_is_no_link_and_messages_still_come();
  the_wrong_message_is_told_on_both_sides();
  a_neighbour_that_does_not_come_is_named();
  a_message_that_is_stuck_between_devices_is_given_up();
  a_send_holds_nothing_up();
  every_schedule_runs_with_sends_that_wait_for_their_receives();
  puts("device_pipeline_test: ok");
  return 0;
}
