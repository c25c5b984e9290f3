// Swap files: misuse and broken disks first; then random traffic against a copy in memory, for every engine and option;
// then as jobs of a runtime, ordered against kernels on other streams. Made for sanitizers.
#include <dirent.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "../../native/backend/cpu/backend.h"
#include "../../native/core/runtime.h"
#include "../../native/io/swap_file.h"
#include "check.h"

namespace {

std::string folder;

template <class Body>
zs::Error error_of(Body body) {
  try {
    body();
  } catch (const zs::Error &error) {
    return error;
  }
  return {"", ""};
}

bool mentions(const zs::Error &error, const char *code, std::initializer_list<const char *> words) {
  bool all = error.code == code;
  for (const char *word : words) all = all && error.message.find(word) != std::string::npos;
  if (!all) fprintf(stderr, "got %s: %s\n", error.code.c_str(), error.message.c_str());
  return all;
}

int entries_of(const std::string &path) {
  int count = -2;  // . and ..
  DIR *directory = opendir(path.c_str());
  while (readdir(directory)) count++;
  closedir(directory);
  return count;
}

void misuse_is_told_with_the_path_and_the_cure() {
  auto open = [](const std::string &path, int64_t bytes, zs::SwapOptions options = {}) {
    return error_of([&] { zs::SwapFile(path, bytes, options); });
  };
  CHECK(mentions(open(folder + "/none/x", 4096), "IO", {"/none'", "create it"}));
  fclose(fopen((folder + "/plain").c_str(), "w"));
  CHECK(mentions(open(folder + "/plain/x", 4096), "IO", {"/plain'", "not a folder"}));
  CHECK(mentions(open("/proc/x", 4096), "IO", {"nvme_path '/proc'"}));
  CHECK(mentions(open(folder + "/x", int64_t{1} << 50), "IO", {"bytes left", "are needed"}));
  CHECK(mentions(open(folder + "/x", 1, {.block_size = 4095}), "ARGUMENT", {"4095"}));
  CHECK(mentions(open(folder + "/x", 1, {.queue_depth = 0}), "ARGUMENT", {"queue_depth 0"}));
  CHECK(mentions(open(folder + "/x", 1, {.threads = 0}), "ARGUMENT", {"0 threads"}));
  CHECK(mentions(open(folder + "/x", -1), "ARGUMENT", {"-1 bytes"}));
  unlink((folder + "/plain").c_str());
  CHECK(entries_of(folder) == 0);
}

void a_full_disk_is_found_when_the_file_is_opened() {
  std::string disk = folder + "/small";
  mkdir(disk.c_str(), 0700);
  if (mount("none", disk.c_str(), "tmpfs", 0, "size=8m") != 0) {
    printf("skipped: a full disk (no right to mount one)\n");
    rmdir(disk.c_str());
    return;
  }
  {
    zs::SwapFile fits(disk + "/a", 6 << 20, {});
    zs::Error error = error_of([&] { zs::SwapFile(disk + "/b", 6 << 20, {}); });
    CHECK(mentions(error, "IO", {"/small'", "2097152 bytes left", "6291456 are needed"}));
    std::vector<char> data(1 << 20, 'x');
    fits.transfer(true, {{0, data.data(), 1 << 20}});
  }
  zs::SwapFile again(disk + "/b", 6 << 20, {});  // the first one's space is free again
  umount2(disk.c_str(), MNT_DETACH);
  rmdir(disk.c_str());
}

std::vector<zs::SwapOptions> all_options() {
  std::vector<zs::SwapOptions> all;
  for (int bits = 0; bits < 32; bits++)
    for (int64_t block : {4096, 20000, 1 << 16})
      all.push_back({.block_size = block, .queue_depth = bits & 16 ? 1 : 5, .threads = bits & 1 ? 3 : 1,
                     .single_submit = (bits & 2) != 0, .overlap_events = (bits & 2) == 0,
                     .allow_uring = (bits & 4) != 0, .allow_direct = (bits & 8) != 0});
  return all;
}

void a_file_that_was_cut_off_is_a_short_read_with_its_place() {
  for (const zs::SwapOptions &options : all_options()) {
    zs::SwapFile file(folder + "/cut", 1 << 20, options);
    std::vector<char> data(1 << 20);
    CHECK(ftruncate(file.descriptor(), 500000) == 0);
    file.transfer(false, {{0, data.data(), 490000}});
    zs::Error error = error_of([&] { file.transfer(false, {{3, data.data(), (1 << 20) - 5}}); });
    CHECK(mentions(error, "IO", {"/cut' at offset", "short read", "cut the file off", "last checkpoint"}));
    error = error_of([&] { file.transfer(false, {{524288 + 7, data.data(), 9}}); });
    CHECK(mentions(error, "IO", {"at offset 524295", "0 of 9 bytes"}));
    file.transfer(true, {{0, data.data(), 1 << 20}});  // it grows again
    file.transfer(false, {{3, data.data(), (1 << 20) - 5}});
  }
}

void random_traffic_equals_a_copy_in_memory(const zs::SwapOptions &options, uint32_t seed) {
  constexpr int64_t kBytes = 3 * (1 << 18) + 777;
  std::mt19937 random(seed);
  auto below = [&random](int64_t end) { return static_cast<int64_t>(random() % static_cast<uint64_t>(end)); };
  zs::SwapFile file(folder + "/random", kBytes, options);
  CHECK(entries_of(folder) == 0);
  std::vector<char> oracle(kBytes, 0), data(kBytes + 4096);
  char *pages = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(data.data()) + 4095) / 4096 * 4096);
  for (int step = 0; step < 16; step++) {
    bool write = below(2) == 0, aligned = below(3) == 0;
    std::vector<zs::SwapRange> ranges;
    char *place = aligned ? pages : data.data();
    int64_t from = 0;
    for (int i = 0; i < 3 && from < kBytes; i++) {
      int64_t offset = from + below((kBytes - from) / 2 + 1);
      int64_t size = below(kBytes - offset + 1) / (1 + below(4));
      if (aligned) offset = offset / 4096 * 4096;
      if (offset < from) continue;
      ranges.push_back({offset, place + offset, size});
      from = (offset + size + 4095) / 4096 * 4096;
    }
    for (size_t i = 0; i < data.size(); i += 97) data[i] = static_cast<char>(random());
    file.transfer(write, ranges);
    for (const zs::SwapRange &range : ranges) {
      if (write) memcpy(oracle.data() + range.offset, range.data, static_cast<size_t>(range.bytes));
      else CHECK(memcmp(oracle.data() + range.offset, range.data, static_cast<size_t>(range.bytes)) == 0);
    }
  }
  file.transfer(false, {{0, data.data(), kBytes}});
  CHECK(memcmp(oracle.data(), data.data(), kBytes) == 0);
}

struct Swapped {
  zs::Runtime runtime{zs::cpu::backend()};
  int file;
  Swapped(bool serial, int64_t bytes) {
    runtime.configure(2, serial, 0);
    file = runtime.open_swap(folder + "/runtime", bytes, {.block_size = 8192});
  }
  int64_t make(int64_t count) {
    double packet[] = {ZS_F32, 5, 0, 1, static_cast<double>(count)};
    return runtime.alloc(packet);
  }
  void fill(int64_t handle, float value, int stream) {
    double packet[] = {ZS_OP_fill, static_cast<double>(stream), static_cast<double>(handle), value};
    runtime.run(packet);
  }
  void transfer(bool write, std::vector<std::pair<int64_t, int64_t>> ranges) {
    double packet[64] = {write ? 1.0 : 0.0, static_cast<double>(file), static_cast<double>(ranges.size())};
    int at = 3;
    for (auto [offset, handle] : ranges) {
      packet[at++] = static_cast<double>(offset);
      packet[at++] = static_cast<double>(handle);
    }
    runtime.transfer(packet);
  }
  std::vector<float> values(int64_t handle, int64_t count, int stream = 0) {
    std::vector<float> result(static_cast<size_t>(count));
    runtime.read_now(static_cast<double>(handle), result.data(), result.size() * 4, stream);
    return result;
  }
};

// Tensors are filled on any stream, written, overwritten, read back: as if everything had run in order.
void swapping_is_ordered_against_kernels(bool serial, uint32_t seed) {
  constexpr int kTensors = 5, kPlaces = 7;
  constexpr int64_t kCount = 5000;
  Swapped swapped(serial, kPlaces * 20480);
  std::mt19937 random(seed);
  auto below = [&random](int end) { return static_cast<int>(random() % static_cast<unsigned>(end)); };
  int64_t tensors[kTensors];
  float expected[kTensors] = {}, stored[kPlaces] = {};
  for (int64_t &tensor : tensors) tensor = swapped.make(kCount);
  for (int i = 0; i < kTensors; i++) swapped.fill(tensors[i], 0, 0);
  for (int step = 0; step < 600; step++) {
    int a = below(kTensors), b = (a + 1) % kTensors, p = below(kPlaces), q = (p + 1) % kPlaces;
    int kind = below(4);
    if (kind == 0) {
      expected[a] = static_cast<float>(step);
      swapped.fill(tensors[a], expected[a], below(3));
    } else if (kind == 1) {
      swapped.transfer(true, {{p * 20480, tensors[a]}, {q * 20480, tensors[b]}});
      stored[p] = expected[a];
      stored[q] = expected[b];
    } else if (kind == 2) {
      swapped.transfer(false, {{q * 20480, tensors[a]}});
      expected[a] = stored[q];
    } else if (below(10) == 0) {
      for (float value : swapped.values(tensors[a], kCount, below(3))) CHECK(value == expected[a]);
    }
  }
  for (int i = 0; i < kTensors; i++)
    for (float value : swapped.values(tensors[i], kCount)) CHECK(value == expected[i]);
}

void a_failed_read_reaches_those_who_wait_for_it_and_is_told_once() {
  Swapped swapped(false, 1 << 16);
  int64_t tensor = swapped.make(1000);
  int descriptor = swapped.runtime.swap(swapped.file)->descriptor();
  CHECK(ftruncate(descriptor, 4096) == 0);
  swapped.transfer(false, {{32768, tensor}});
  zs::Error error = error_of([&] { swapped.values(tensor, 1000); });
  CHECK(mentions(error, "IO", {"[swapRead]", "runtime' at offset 32768", "short read"}));
  CHECK(ftruncate(descriptor, 1 << 16) == 0);
  swapped.transfer(false, {{32768, tensor}});
  for (float value : swapped.values(tensor, 1000)) CHECK(value == 0);
  CHECK(mentions(error_of([&] { swapped.transfer(false, {{62000, tensor}}); }), "ARGUMENT", {"not within"}));
  CHECK(mentions(error_of([&] { swapped.transfer(false, {{-4, tensor}}); }), "ARGUMENT", {"not within"}));
  CHECK(mentions(error_of([&] { swapped.transfer(true, {{0, tensor}, {4000, tensor}}); }), "ARGUMENT", {"page"}));
  swapped.fill(tensor, 3, 0);
  swapped.transfer(true, {{0, tensor}});
  swapped.runtime.close_swap(swapped.file);  // what is queued is done nevertheless
  CHECK(mentions(error_of([&] { swapped.transfer(false, {{0, tensor}}); }), "DISPOSED", {"closed"}));
  swapped.runtime.synchronize_now(-1);
}

}  // namespace

int main() {
  char pattern[] = "/tmp/zeroshard-io-XXXXXX";
  folder = mkdtemp(pattern);
  misuse_is_told_with_the_path_and_the_cure();
  a_full_disk_is_found_when_the_file_is_opened();
  a_file_that_was_cut_off_is_a_short_read_with_its_place();
  uint32_t seed = 1;
  for (const zs::SwapOptions &options : all_options()) random_traffic_equals_a_copy_in_memory(options, seed++);
  for (uint32_t i = 0; i < 4; i++) swapping_is_ordered_against_kernels(i % 2 == 1, i);
  a_failed_read_reaches_those_who_wait_for_it_and_is_told_once();
  CHECK(entries_of(folder) == 0);
  rmdir(folder.c_str());
  zs::SwapFile file("/tmp/zeroshard-io-note", 4096, {});
  printf("ok (%s, %s) %s\n", file.uring() ? "io_uring" : "threads", file.direct() ? "direct" : "buffered",
         file.note().c_str());
}
