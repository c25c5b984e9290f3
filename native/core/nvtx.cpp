#include "nvtx.h"

#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>

namespace zs::nvtx {

namespace {

// What a tool and a program agree on (NVTX 3: nvToolsExt.h and nvtxDetail/nvtxTypes.h): the program hands out tables
// of places for function pointers, one per module, and the tool fills in those that it implements.
constexpr uint16_t kVersion = 3;
enum Table { kCallbacks = 1, kVersionInfo = 3 };
enum Module { kCore = 1, kCore2 = 5, kModules = 7 };
constexpr unsigned kMostIds = 16, kIds[kModules] = {0, 16, 9, 15, 7, 16, 7};  // of core, CUDA, OpenCL, cudart, core2, sync
enum CoreId { kNameOsThread = 14 };
enum Core2Id { kRangeStart = 2, kRangeEnd = 3, kRangePush = 4, kRangePop = 5, kDomainCreate = 12 };

struct Attributes {
  uint16_t version, size;
  uint32_t category;
  int32_t color_type;
  uint32_t color;
  int32_t payload_type, reserved;
  uint64_t payload;
  int32_t message_type;
  const char *message;
};
static_assert(sizeof(Attributes) == 48 && offsetof(Attributes, message) == 40);
constexpr int32_t kAscii = 1;

using Function = void (*)();
using Domain = void *;

Function functions[kModules][kMostIds];  // a tool fills in all that it has; those of kCore and kCore2 are called
Domain domain;

template <class Called>
Called core2_as(Core2Id id) {
  return reinterpret_cast<Called>(functions[kCore2][id]);
}

int module_table(int module, Function ***table, unsigned *size) {
  static Function *places[kModules][kMostIds + 1];
  if (module < kCore || module >= kModules) return 0;
  for (unsigned i = 0; i < kIds[module]; i++) places[module][i] = &functions[module][i];
  *table = places[module];
  if (size) *size = kIds[module];
  return 1;
}

struct Callbacks {
  size_t size;
  int (*module_table)(int module, Function ***table, unsigned *size);
};
struct VersionInfo {
  size_t size;
  uint32_t version, reserved;
  void (*set_injection_version)(uint32_t version);
};

const void *export_table(uint32_t id) {
  static const Callbacks callbacks = {sizeof(Callbacks), module_table};
  static const VersionInfo version = {sizeof(VersionInfo), kVersion, 0, [](uint32_t) {}};
  return id == kCallbacks ? static_cast<const void *>(&callbacks) : id == kVersionInfo ? &version : nullptr;
}

// A tool that does not load, or refuses, leaves the program without ranges.
bool attach() {
  const char *path = getenv("NVTX_INJECTION64_PATH");
  void *handle = path && path[0] ? dlopen(path, RTLD_LAZY | RTLD_LOCAL) : nullptr;
  if (!handle) return false;
  using Initialize = int (*)(const void *(*export_table)(uint32_t id));
  auto initialize = reinterpret_cast<Initialize>(dlsym(handle, "InitializeInjectionNvtx2"));
  if (!initialize || !initialize(export_table)) return false;
  const Function *core2 = functions[kCore2];
  bool ranges = core2[kRangePush] && core2[kRangePop] && core2[kRangeStart] && core2[kRangeEnd];
  if (!ranges) return false;
  if (core2[kDomainCreate]) domain = core2_as<Domain (*)(const char *)>(kDomainCreate)("zeroshard");
  return true;
}

Attributes attributes(const char *message) {
  return {kVersion, sizeof(Attributes), 0, 0, 0, 0, 0, 0, kAscii, message};
}

}  // namespace

bool on() {
  static const bool attached = attach();
  return attached;
}

void push(const char *message) {
  Attributes given = attributes(message);
  core2_as<int (*)(Domain, const Attributes *)>(kRangePush)(domain, &given);
}

void pop() { core2_as<int (*)(Domain)>(kRangePop)(domain); }

uint64_t start(const char *message) {
  Attributes given = attributes(message);
  return core2_as<uint64_t (*)(Domain, const Attributes *)>(kRangeStart)(domain, &given);
}

void end(uint64_t id) { core2_as<void (*)(Domain, uint64_t)>(kRangeEnd)(domain, id); }

void name_thread(const char *name) {
  Function named = functions[kCore][kNameOsThread];
  if (!named) return;
  uint32_t thread = static_cast<uint32_t>(syscall(SYS_gettid));
  reinterpret_cast<void (*)(uint32_t, const char *)>(named)(thread, name);
}

}  // namespace zs::nvtx
