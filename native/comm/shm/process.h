// Facts about processes of this host.
#pragma once
#include <cstdint>
#include <string>

namespace zs::shm {

uint64_t process_start(int pid);  // ticks since boot; 0: no such process, or a zombie
bool process_alive(int pid, uint64_t started);
int open_pidfd(int pid);  // -1: the kernel has none
std::string boot_id();
std::string host_name();
uint64_t random64();
uint64_t hash64(const std::string &text);  // FNV-1a

}  // namespace zs::shm
