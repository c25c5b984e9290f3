// A function in several copies, for several instruction sets; the loader picks what the processor can run.
// (Not under TSan: the loader's hooks run before it is ready. Not where the C library has no such loader.)
#pragma once
#include <cstdlib>  // defines __GLIBC__

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_THREAD__)
#define ZS_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define ZS_CLONES
#endif
