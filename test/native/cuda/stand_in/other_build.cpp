// A backend of another build, which whoever opens it must notice: OTHER_ABI makes it refuse, else its table has another size.
#include <cstdio>

#include "../../../../native/backend/backend.h"

extern "C" __attribute__((visibility("default"))) const zs_backend *zs_backend_open(uint32_t abi, int32_t, char *error, size_t bytes) {
#ifdef OTHER_ABI
  return snprintf(error, bytes, "the backend has ABI 1, the core %u; reinstall zeroshard", abi), nullptr;
#else
  static zs_backend table = {};
  table.abi = abi;
  table.struct_size = sizeof table - 8;
  return error[0] = 0, bytes > 0 ? &table : nullptr;
#endif
}
