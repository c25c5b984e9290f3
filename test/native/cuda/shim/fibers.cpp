// The scheduler of fibers.h. Fibers switch by a few instructions on x86-64 and by ucontext elsewhere and under
// sanitizers' builds for other processors.
#include "fibers.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace zs::shim {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStack = 1024 * 1024;  // frames are several times as large
#else
constexpr size_t kStack = 64 * 1024;
#endif
enum class State { ready, at_barrier, at_exchange, done };

struct Fiber {
#if defined(__x86_64__)
  void *stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
  char *stack = nullptr;
  State state = State::done;
  uint64_t exchanges = 0;
  size_t stack_bytes = 0;  // the address sanitizer's affair, as what follows
  const void *stack_bottom = nullptr;
  void *fake_stack = nullptr;
};

struct Warp {
  alignas(16) char slots[2][32 * kSlot];  // by turns: nobody is more than one exchange ahead
  unsigned waiting = 0;
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Fiber scheduler;
  unsigned current = 0, threads = 0;
  Index grid{}, block{};
  Entry entry = nullptr;
  void *body = nullptr;
  char *shared_pages = nullptr, *shared = nullptr;
  size_t shared_room = 0;
  Order order = Order::forward;
  char error[200] = "", told[200] = "";
} machine;

#if defined(__x86_64__)
// Saves what the called function must keep, changes the stack, restores.
extern "C" void zs_shim_switch(void **from, void *to);
asm(R"(
.text
.type zs_shim_switch, @function
zs_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size zs_shim_switch, .-zs_shim_switch
)");
void change_stack(Fiber &from, Fiber &to) { zs_shim_switch(&from.stack_pointer, to.stack_pointer); }
#else
void change_stack(Fiber &from, Fiber &to) { swapcontext(&from.context, &to.context); }
#endif

// The address sanitizer is told which stack runs; it tells the bounds of the one before, which of the scheduler are known so
// alone.
#if defined(__SANITIZE_ADDRESS__)
void arrived(Fiber &fiber, bool from_scheduler) {
  const void *bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &bottom, &bytes);
  if (from_scheduler) machine.scheduler.stack_bottom = bottom, machine.scheduler.stack_bytes = bytes;
}
void change(Fiber &from, Fiber &to) {
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_bytes);
  change_stack(from, to);
  arrived(from, &from != &machine.scheduler);
}
#else
void arrived(Fiber &, bool) {}
void change(Fiber &from, Fiber &to) { change_stack(from, to); }
#endif

void give_way(State state) {
  Fiber &fiber = machine.fibers[machine.current];
  fiber.state = state;
  change(fiber, machine.scheduler);
}

[[noreturn]] void fiber_main() {
  arrived(machine.fibers[machine.current], true);
  machine.entry(machine.body);
  for (;;) give_way(State::done);
}

void prepare(Fiber &fiber) {
  if (!fiber.stack) {
    char *pages = static_cast<char *>(mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages == MAP_FAILED) abort();
    fiber.stack = pages;
  }
  fiber.state = State::ready;
  fiber.exchanges = 0;
  fiber.stack_bottom = fiber.stack, fiber.stack_bytes = kStack, fiber.fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack, kStack);  // of a block that did not end
#endif
#if defined(__x86_64__)
  void **top = reinterpret_cast<void **>(fiber.stack + kStack) - 2;  // at entry: 8 below a multiple of 16
  *top = reinterpret_cast<void *>(&fiber_main);
  fiber.stack_pointer = top - 6;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack = {fiber.stack, 0, kStack};
  makecontext(&fiber.context, reinterpret_cast<void (*)()>(&fiber_main), 0);
#endif
}

void fail(const char *what) {
  if (machine.error[0] == 0) {
    snprintf(machine.error, sizeof machine.error, "%s (block %u,%u,%u, thread %u)", what, machine.block.x, machine.block.y,
             machine.block.z, machine.current);
  }
}

unsigned place(unsigned i, unsigned count) { return machine.order == Order::forward ? i : count - 1 - i; }

// Runs a warp's lanes until each is at the block's barrier or done.
void run_warp(unsigned warp) {
  const unsigned first = warp * 32, lanes = machine.threads - first < 32 ? machine.threads - first : 32;
  for (;;) {
    unsigned at_exchange = 0, at_barrier = 0;
    for (unsigned i = 0; i < lanes; i++) {
      machine.current = first + place(i, lanes);
      Fiber &fiber = machine.fibers[machine.current];
      if (fiber.state == State::ready) change(machine.scheduler, fiber);
      at_exchange += fiber.state == State::at_exchange;
      at_barrier += fiber.state == State::at_barrier;
    }
    if (at_exchange == 0) return;
    if (at_exchange < 32) return fail("not all lanes of a warp came to its collective");
    if (at_barrier > 0) return fail("a warp's collective and a barrier at once");
    for (unsigned i = 0; i < 32; i++) machine.fibers[first + i].state = State::ready;
  }
}

void run_block() {
  for (unsigned i = 0; i < machine.threads; i++) prepare(machine.fibers[i]);
  const unsigned warps = (machine.threads + 31) / 32;
  for (;;) {
    for (unsigned w = 0; w < warps; w++) run_warp(place(w, warps));
    if (machine.error[0]) return;
    unsigned at_barrier = 0;
    for (unsigned i = 0; i < machine.threads; i++) at_barrier += machine.fibers[i].state == State::at_barrier;
    if (at_barrier == 0) return;
    if (at_barrier < machine.threads) return fail("threads ended while others waited at the block's barrier");
    for (unsigned i = 0; i < machine.threads; i++) machine.fibers[i].state = State::ready;
  }
}

void prepare_shared(size_t bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), room = (bytes + page - 1) / page * page;
  if (room > machine.shared_room || !machine.shared_pages) {
    if (machine.shared_pages) munmap(machine.shared_pages, machine.shared_room + page);
    machine.shared_pages = static_cast<char *>(
        mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (machine.shared_pages == MAP_FAILED) abort();
    machine.shared_room = room;
    mprotect(machine.shared_pages + room, page, PROT_NONE);
  }
  machine.shared = machine.shared_pages + machine.shared_room - (bytes + 15) / 16 * 16;
}

}  // namespace

Index thread_index() { return {machine.current, 0, 0}; }
Index block_index() { return machine.block; }
Index grid_size() { return machine.grid; }
Index block_size() { return {machine.threads, 1, 1}; }
unsigned lane() { return machine.current % 32; }
char *shared_memory() { return machine.shared; }
void set_order(Order order) { machine.order = order; }

void block_barrier() { give_way(State::at_barrier); }

const char *exchange(const void *value, size_t size) {
  Fiber &fiber = machine.fibers[machine.current];
  char *slots = machine.warps[machine.current / 32].slots[fiber.exchanges++ % 2];
  if (size > 0) memcpy(slots + lane() * kSlot, value, size);
  give_way(State::at_exchange);
  return slots;
}

void check_mask(unsigned mask) {
  if (mask != 0xffffffffu) fail("a collective of a part of a warp");
}

const char *take_error() {
  if (machine.error[0] == 0) return nullptr;
  memcpy(machine.told, machine.error, sizeof machine.told);
  machine.error[0] = 0;
  return machine.told;
}

void run(Index grid, unsigned threads, size_t shared, Entry entry, void *body) {
  machine.threads = threads;
  machine.grid = grid;
  machine.entry = entry;
  machine.body = body;
  if (threads == 0 || threads > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535)
    return fail("a grid that CUDA refuses");
  if (machine.fibers.size() < threads) machine.fibers.resize(threads);
  machine.warps.resize(32);
  prepare_shared(shared);
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks && machine.error[0] == 0; i++) {
    const uint64_t b = machine.order == Order::forward ? i : blocks - 1 - i;
    machine.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                     static_cast<unsigned>(b / grid.x / grid.y)};
    memset(machine.shared, 0xff, shared);  // NaN in every float type
    run_block();
  }
}

}  // namespace zs::shim
