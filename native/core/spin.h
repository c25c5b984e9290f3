// Waiting a little before sleeping: what comes next is usually microseconds away.
#pragma once
#include <chrono>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace zs {

inline void cpu_relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// True as soon as `ready()` is; false when `microseconds` have passed first.
template <class Ready>
bool spin_until(Ready ready, int microseconds) {
  if (ready()) return true;
  auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  do {
    for (int i = 0; i < 32; i++) {
      cpu_relax();
      if (ready()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace zs
