// The real cuDNN, without a device: for cards that are only described to it, it must find engines for our graphs of
// attention and compile them. Skipped, with the reason, where the library is not found. Arguments: architectures
// (80 90 100 120), all shapes for each; without, only 90.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../../native/backend/backend.h"
#include "../../native/backend/cuda/attention_graph.h"
#include "check.h"

namespace {

using namespace zs::cuda;

struct Card {
  int version, multiprocessors, shared, l2;
};
constexpr Card kCards[] = {{800, 108, 166912, 41943040}, {900, 132, 232448, 52428800},
                           {1000, 148, 232448, 132120576}, {1200, 188, 101376, 134217728}};

// In the names that cuDNN asks for.
std::string describe(const Card &card) {
  char text[1024];
  snprintf(text, sizeof text,
           "{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,"
           "\"multiProcessorCount\":%d,\"smCountOrigin\":0,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
           "\"maxSharedMemoryPerBlockOptin\":%d,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,"
           "\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,\"pciDeviceId\":0,"
           "\"isTccDriver\":0,\"supportCoopLaunch\":1,\"totalGlobalMem\":85899345920,\"smClockRateKHz\":1700000,"
           "\"memClockRateKHz\":2600000,\"l2CacheSize\":%d,\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,"
           "\"deviceName\":\"described\"}",
           card.multiprocessors, card.shared, card.version == 1200 ? 1536 : 2048, card.l2, card.version);
  return text;
}

DnnDescriptor device_of(const Cudnn &api, const Card &card) {
  const std::string text = describe(card);
  DnnDescriptor made = nullptr;
  int status = api.descriptor_create(DNN_DEVICEPROP, &made);
  if (!status)
    status = api.set(made, DNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, DNN_TYPE_CHAR, static_cast<int64_t>(text.size()),
                     text.c_str());
  if (!status) status = api.finalize(made);
  if (!status) return made;
  char said[256] = "";
  api.last_error(said, sizeof said);
  fprintf(stderr, "a card of %d is refused: %s\n", card.version, said);
  exit(1);
}

struct Case {
  const char *name;
  AttentionShape shape;
};

AttentionShape packed(int64_t b, int64_t t, int64_t hq, int64_t hkv, int64_t d, int dtype = ZS_BF16) {
  AttentionShape s = {};
  s.dtype = dtype, s.b = b, s.tq = s.tk = t, s.hq = hq, s.hkv = hkv, s.d = d, s.causal = true;
  s.q_row = s.k_row = s.v_row = (hq + 2 * hkv) * d;
  s.q_batch = s.k_batch = s.v_batch = s.q_row * t;
  s.o_row = hq * d;
  return s;
}

AttentionShape part_of_a_sequence() {
  AttentionShape s = packed(2, 1024, 8, 8, 64);
  s.tq = 512, s.q_batch = s.q_row * s.tq, s.shifted = true;
  return s;
}

AttentionShape without_mask() {
  AttentionShape s = packed(2, 1000, 8, 8, 64);
  s.causal = false;
  return s;
}

// 4 of 32 heads of a sample, as a call is cut for its workspace.
AttentionShape some_heads() {
  AttentionShape s = packed(1, 4096, 32, 8, 128);
  s.hq = 4, s.hkv = 1;
  return s;
}

const Case kCases[] = {{"GPT-2, bf16", packed(8, 1024, 12, 12, 64)}, {"GPT-2, f16", packed(8, 1024, 12, 12, 64, ZS_F16)},
                       {"Llama 3 8B", packed(1, 2048, 32, 8, 128)}, {"some heads of Llama's", some_heads()},
                       {"queries behind keys", part_of_a_sequence()}, {"no mask, 1000 keys", without_mask()},
                       {"heads of 256", packed(1, 512, 4, 4, 256)}, {"heads of 12", packed(1, 64, 2, 2, 12)}};

// What 9.24 has engines for; the rest is for our own kernels.
bool expected(const Card &card, const AttentionShape &s) {
  if (s.d % 8 != 0) return false;
  return !(s.backward && s.d > 128 && card.version != 900);
}

// Forward none to speak of; backward the slopes of the weights and, where heads share keys, dk and dv of each head.
int64_t most_workspace(const AttentionShape &s) {
  const int64_t weights = 2 * s.b * s.hq * s.tq * (s.tk + 127) / 128 * 128, whole = 4 * s.b * s.hq * s.tk * s.d;
  return 4096 + (s.backward ? weights + (s.hq > s.hkv ? whole : 0) : 0);
}

void try_card(const Cudnn &api, const Card &card) {
  DnnDescriptor device = device_of(api, card);
  for (Case one : kCases)
    for (bool backward : {false, true}) {
      one.shape.backward = backward;
      const auto start = std::chrono::steady_clock::now();
      AttentionPlan plan = plan_attention(api, nullptr, device, one.shape);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      printf("sm_%d %s, %s: %s, %.1f s\n", card.version / 10, one.name, backward ? "backward" : "forward",
             plan.plan ? (std::to_string(plan.workspace) + " bytes").c_str() : plan.reason.c_str(), took.count());
      CHECK((plan.plan != nullptr) == expected(card, one.shape) && (plan.plan != nullptr) == plan.reason.empty());
      CHECK(plan.workspace <= most_workspace(one.shape));
      forget(api, plan);
    }
  api.descriptor_destroy(device);
}

}  // namespace

int main(int count, char **arguments) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  puts("cudnn_plans_test: skipped: cuDNN under a sanitizer");
  return 0;
#endif
  if (!dlopen("libcuda.so.1", RTLD_NOW)) CHECK(dlopen(ZS_DRIVER, RTLD_NOW | RTLD_GLOBAL));
  char error[ZS_ERROR_BYTES] = "";
  const Cudnn *api = cudnn(error);
  if (!api) return printf("cudnn_plans_test: skipped: %s\n", error), 0;
  for (const Card &card : kCards) {
    bool wanted = count == 1 && card.version == 900;
    for (int i = 1; i < count; i++) wanted |= atoi(arguments[i]) * 10 == card.version;
    if (wanted) try_card(*api, card);
  }
  puts("cudnn_plans_test: ok");
  return 0;
}
