// Versions of a plain loop by instruction set, chosen when the addon is loaded. All round alike: CMake forbids contraction.
#pragma once
#if defined(ZS_X86)
#define ZS_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ZS_CLONES
#endif
