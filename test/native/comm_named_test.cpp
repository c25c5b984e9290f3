// Where a process's files cannot be opened through /proc, arenas are named objects in /dev/shm: bounded by it, gone
// from it as soon as all are connected, and swept where a process was killed before. On a /dev/shm of its own.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#include <filesystem>

#include "processes.h"

namespace {

using namespace zs::test;
using zs::Collective;

void hide() { prctl(PR_SET_DUMPABLE, 0); }

int num_objects() {
  int count = 0;
  for (const auto &entry : std::filesystem::directory_iterator("/dev/shm")) {
    count += entry.path().filename().string().rfind("zeroshard-", 0) == 0;
  }
  return count;
}

void sum_ones(Rank &self, std::vector<float> &data) {
  std::fill(data.begin(), data.end(), 1.0f);
  self.group->run({Collective::all_reduce, 0, data.data(), data.data(), static_cast<int64_t>(data.size()), ZS_F32, 0, 0, false});
  for (float value : data) CHECK(value == static_cast<float>(self.ranks));
}

void write_file(const char *path, const std::string &text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  [[maybe_unused]] const ssize_t written = write(fd, text.data(), text.size());
  close(fd);
}

// An empty /dev/shm of so many bytes for this process and its children; false where the system forbids it.
bool own_dev_shm(const char *size) {
  const std::string user = std::to_string(getuid()), group = std::to_string(getgid());
  if (unshare(CLONE_NEWNS) != 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", user + " " + user + " 1");
    write_file("/proc/self/gid_map", group + " " + group + " 1");
  }
  mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  return mount("none", "/dev/shm", "tmpfs", 0, (std::string("mode=1777,size=") + size).c_str()) == 0;
}

// Runs `body` with such a /dev/shm, or says why not.
void with_dev_shm(const char *size, void (*body)()) {
  fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    if (!own_dev_shm(size)) exit(kThrew);
    body();
    exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kThrew) puts("skipped: no mount name space for a small /dev/shm");
  else CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void arenas_work_and_leave_no_name() {
  run_ranks(3, [](Rank &self) {
    hide();
    self.connect(60);
    CHECK(std::string(self.board.facts[self.rank]).find(" name=/zeroshard-") != std::string::npos);
    std::vector<float> data(3 << 20), few(3);
    sum_ones(self, data);
    sum_ones(self, few);
    const int id = self.group->group({2, 1, 0});
    self.group->run({Collective::barrier, id, nullptr, nullptr, 0, 0, 0, 0, false});
    CHECK(num_objects() == 0);
    CHECK(self.group->arena_allocate(size_t{64} << 20) == nullptr);  // no room: callers take other memory
    void *some = self.group->arena_allocate(size_t{1} << 20);
    CHECK(some);
    self.group->arena_release(some, size_t{1} << 20);
  });
  CHECK(num_objects() == 0);
}

void leftovers_of_killed_ranks_disturb_nobody() {
  {
    Processes killed(2, [](Rank &self) {
      hide();
      self.create(60, "same");
      self.mark(1);
      rest(60);
    });
    for (int r = 0; r < 2; r++) killed.wait_for_mark(r, 1);
    CHECK(num_objects() == 2);
    // What a living process holds stays: a job that starts meanwhile sweeps around it.
    run_ranks(2, [](Rank &self) {
      hide();
      self.connect(60);
    });
    CHECK(num_objects() == 2);
    for (int r = 0; r < 2; r++) killed.signal(r, SIGKILL);
    killed.wait();
    CHECK(num_objects() == 2);
  }
  run_ranks(2, [](Rank &self) {
    hide();
    self.create(60, "same");
    self.group->connect(self.all_facts());
    std::vector<float> data(100);
    sum_ones(self, data);
  });
  CHECK(num_objects() == 0);
}

void fails_to_connect(const std::vector<std::string> &parts) {
  Processes ranks(2, [](Rank &self) {
    hide();
    self.create(60);
  });
  ranks.wait();
  CHECK(ranks.code(0) == "OUT_OF_MEMORY" || ranks.code(1) == "OUT_OF_MEMORY");
  const std::string message = ranks.message(ranks.code(0).empty() ? 1 : 0);
  for (const std::string &part : parts) {
    if (message.find(part) == std::string::npos) fprintf(stderr, "'%s' lacks '%s'\n", message.c_str(), part.c_str());
    CHECK(message.find(part) != std::string::npos);
  }
  CHECK(num_objects() == 0);
}

void without_room_for_a_control_block() {
  fails_to_connect({"[commCreate] shared memory for the control block: No space left", "free in /dev/shm", "--shm-size"});
}

void without_room_for_a_group() {
  fails_to_connect({"[commGroup] the group of ranks 0, 1 needs", "KiB of shared memory, free in /dev/shm", "--shm-size"});
}

void without_room_for_a_message() {
  Processes ranks(2, [](Rank &self) {
    hide();
    self.connect(60);
    std::vector<float> data(2 << 20);
    zs::CollectiveCall call{Collective::send, 0, nullptr, data.data(), 2 << 20, ZS_F32, 1, 0, false};
    if (self.rank == 1) call = {Collective::recv, 0, data.data(), nullptr, 2 << 20, ZS_F32, 0, 0, false};
    self.group->run(call);
  });
  ranks.wait();
  for (int r = 0; r < 2; r++) {
    CHECK(ranks.code(r) == "OUT_OF_MEMORY");
    CHECK(ranks.message(r).find("[send] send f32 ×2097152") == 0);
    CHECK(ranks.message(r).find("needs 8192 KiB of shared memory") != std::string::npos);
  }
}

}  // namespace

int main() {
  with_dev_shm("16m", arenas_work_and_leave_no_name);
  with_dev_shm("16m", leftovers_of_killed_ranks_disturb_nobody);
  with_dev_shm("4k", without_room_for_a_control_block);
  with_dev_shm("900k", without_room_for_a_group);
  with_dev_shm("4m", without_room_for_a_message);
  puts("comm_named_test: ok");
  return 0;
}
