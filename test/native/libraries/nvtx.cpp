// A tool as NVTX 3 knows them, for tests: writes what it is told to the file NVTX_RECORD.RANK, a line an event:
//   thread NAME | domain NAME | push DOMAIN MESSAGE | pop DOMAIN | start DOMAIN ID MESSAGE | end DOMAIN ID
// It checks the tables and attributes that a program hands it, and ends the program where they are wrong.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

namespace {

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
using Function = void (*)();
struct Callbacks {
  size_t size;
  int (*module_table)(int module, Function ***table, unsigned *size);
};

std::mutex lock;
FILE *file;
std::atomic<uint64_t> next{0x100000000ULL};  // does not fit 32 bits

[[noreturn]] void wrong(const char *what) {
  fprintf(stderr, "nvtx tool: %s\n", what);
  abort();
}

template <class... Values>
void line(const char *format, Values... values) {
  std::lock_guard guard(lock);
  fprintf(file, format, values...);
  fflush(file);
}

const char *message_of(const Attributes *given) {
  if (given->version != 3 || given->size != sizeof(Attributes)) wrong("attributes of another version");
  if (given->message_type != 1 || !given->message) wrong("no message");
  return given->message;
}

char domains[4][64];
int num_domains = 0;

const char *name_of(void *domain) {
  if (domain < static_cast<void *>(domains) || domain >= static_cast<void *>(domains + num_domains)) wrong("no such domain");
  return static_cast<const char *>(domain);
}

void *domain_create(const char *name) {
  snprintf(domains[num_domains], sizeof *domains, "%s", name);
  line("domain %s\n", name);
  return domains[num_domains++];
}
int push(void *domain, const Attributes *given) { return line("push %s %s\n", name_of(domain), message_of(given)), 0; }
int pop(void *domain) { return line("pop %s\n", name_of(domain)), 0; }
uint64_t start(void *domain, const Attributes *given) {
  uint64_t id = next++;
  line("start %s %llu %s\n", name_of(domain), static_cast<unsigned long long>(id), message_of(given));
  return id;
}
void end(void *domain, uint64_t id) { line("end %s %llu\n", name_of(domain), static_cast<unsigned long long>(id)); }
void name_thread(uint32_t thread, const char *name) {
  if (thread == 0) wrong("a thread without a number");
  line("thread %s\n", name);
}

template <class Given>
void fill(Function **table, int id, Given given) {
  *table[id] = reinterpret_cast<Function>(given);
}

}  // namespace

extern "C" int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t id)) {
  const char *path = getenv("NVTX_RECORD");
  if (!path || !path[0]) return 0;  // refuses
  const Callbacks *callbacks = static_cast<const Callbacks *>(export_table(1));
  if (!callbacks || callbacks->size < sizeof(Callbacks)) wrong("no table of callbacks");
  if (!export_table(3) || export_table(9)) wrong("other tables than there are");
  constexpr unsigned sizes[] = {0, 16, 9, 15, 7, 16, 7};  // those of nvtxTypes.h
  Function **core = nullptr, **core2 = nullptr;
  for (int module = 0; module < 8; module++) {
    Function **table = nullptr;
    unsigned size = 0;
    int there = callbacks->module_table(module, &table, &size);
    if (there != (module >= 1 && module <= 6)) wrong("other modules than there are");
    if (there && size != sizes[module]) wrong("a table of another size");
    for (unsigned i = 1; there && i < size; i++)
      if (!table[i] || *table[i]) wrong("a place that is none, or taken");
    if (module == 1) core = table;
    if (module == 5) core2 = table;
  }
  const char *rank = getenv("RANK");
  file = fopen((std::string(path) + "." + (rank ? rank : "0")).c_str(), "w");
  if (!file) wrong("the file cannot be written");
  fill(core, 14, name_thread);
  fill(core2, 2, start);
  fill(core2, 3, end);
  fill(core2, 4, push);
  fill(core2, 5, pop);
  fill(core2, 12, domain_create);
  return 1;
}
