// NVTX ranges, in the domain "zeroshard", for a tool that asks for them: it names its library in NVTX_INJECTION64_PATH
// (as Nsight Systems does). Without a tool on() is false, and nothing else is to be called. By NVTX 3's protocol between
// programs and tools; the toolkit's headers are not needed.
#pragma once
#include <cstdint>

namespace zs::nvtx {

bool on();  // looks for the tool at the first call
// Nested ranges of the calling thread.
void push(const char *message);
void pop();
// Ranges that may overlap, and end on another thread.
uint64_t start(const char *message);
void end(uint64_t id);
void name_thread(const char *name);  // the calling one

}  // namespace zs::nvtx
