// Rate of matmul at GPT-2 124M shapes (B 4, T 64) and in generation: median and best, GFLOP/s.
// With -DZS_BENCH_ONEDNN (link dnnl) oneDNN runs the same shapes, in turn with ours round by round, in the same process;
// the last two columns are our rate over its, by medians and by best rounds.
// Usage: gemm_bench [rounds = 9] [part of a shape's name, '' for all] [threads = 2]
// Build, after npm run build: g++ -std=c++20 -O3 bench/native/gemm_bench.cpp \
//   $(find cmake-build/CMakeFiles/zeroshard_core.dir -path '*backend/cpu*.o' -o -name threadpool.cpp.o) -lpthread
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "../../native/backend/cpu/cpu.h"
#include "../../native/backend/cpu/float16.h"
#include "../../native/ops/matmul.h"
#if defined(ZS_BENCH_ONEDNN)
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace zs::cpu {
int32_t matmul(zs_call *call);
}

namespace {

struct Shape {
  const char *name;
  int64_t m, n, k;
  bool trans_a, trans_b;
};

const Shape shapes[] = {
    {"qkv forward", 256, 2304, 768, false, true},       {"proj forward", 256, 768, 768, false, true},
    {"fc forward", 256, 3072, 768, false, true},        {"fc_proj forward", 256, 768, 3072, false, true},
    {"head forward", 256, 50257, 768, false, true},     {"fc input gradient", 256, 768, 3072, false, false},
    {"fc weight gradient", 3072, 768, 256, true, false}, {"proj weight gradient", 768, 768, 256, true, false},
    {"head input gradient", 256, 768, 50257, false, false},
    {"head weight gradient", 50257, 768, 256, true, false},
    {"square", 2048, 2048, 2048, false, false},
    {"generate fc", 1, 3072, 768, false, true},          {"generate head", 1, 50257, 768, false, true},
    {"generate 8 fc", 8, 3072, 768, false, true},
};

int threads = 2;

// With one thread its processor's time: what else the machine does counts less.
double now() {
  timespec t;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

double best(const std::vector<double> &times) { return *std::min_element(times.begin(), times.end()); }

#if defined(ZS_BENCH_ONEDNN)
struct OneDnn {
  OneDnn(const Shape &s, dnnl::memory::data_type type, void *a, void *b, void *y)
      : engine(dnnl::engine::kind::cpu, 0), stream(engine) {
    using D = dnnl::memory::dims;
    dnnl::memory::desc da({s.m, s.k}, type, s.trans_a ? D{1, s.m} : D{s.k, 1});
    dnnl::memory::desc db({s.k, s.n}, type, s.trans_b ? D{1, s.k} : D{s.n, 1});
    dnnl::memory::desc dy({s.m, s.n}, type, D{s.n, 1});
    primitive = dnnl::matmul({{da, db, dy}, engine});
    arguments = {{DNNL_ARG_SRC, {da, engine, a}}, {DNNL_ARG_WEIGHTS, {db, engine, b}}, {DNNL_ARG_DST, {dy, engine, y}}};
  }
  void run() {
    primitive.execute(stream, arguments);
    stream.wait();
  }
  dnnl::engine engine;
  dnnl::stream stream;
  dnnl::matmul primitive;
  std::unordered_map<int, dnnl::memory> arguments;
};
#endif

void measure(const Shape &s, int dtype, int rounds, zs::ThreadPool &pool) {
  const size_t size = dtype == ZS_F32 ? 4 : 2;
  auto fill = [&](int64_t count) {
    std::vector<char> bytes(static_cast<size_t>(count) * size);
    for (int64_t i = 0; i < count; i++) {
      const float x = static_cast<float>(i * 7919 % 1000) / 1000 - 0.5f;
      if (dtype == ZS_F32) reinterpret_cast<float *>(bytes.data())[i] = x;
      else reinterpret_cast<zs::cpu::bf16 *>(bytes.data())[i] = zs::cpu::to_bf16(x);
    }
    return bytes;
  };
  std::vector<char> a = fill(s.m * s.k), b = fill(s.k * s.n), y(static_cast<size_t>(s.m * s.n) * size);
  zs_tensor tensors[7] = {};
  tensors[MATMUL_Y] = {y.data(), s.m * s.n, {}, 0, dtype};
  tensors[MATMUL_A] = {a.data(), s.m * s.k, {}, 0, dtype};
  tensors[MATMUL_B] = {b.data(), s.k * s.n, {}, 0, dtype};
  double scalars[] = {1, double(s.m), double(s.n), double(s.k), double(s.trans_a), double(s.trans_b), 0, 0};
  zs_call call{};
  call.tensors = tensors, call.scalars = scalars, call.context = &pool;
  const double flops = 2.0 * double(s.m) * double(s.n) * double(s.k);
  std::vector<double> ours, theirs;
#if defined(ZS_BENCH_ONEDNN)
  const auto type = dtype == ZS_F32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
  OneDnn peer(s, type, a.data(), b.data(), y.data());
#endif
  for (int i = 0; i < rounds + 1; i++) {
    double start = now();
    zs::cpu::matmul(&call);
    if (i) ours.push_back(now() - start);
#if defined(ZS_BENCH_ONEDNN)
    start = now();
    peer.run();
    if (i) theirs.push_back(now() - start);
#endif
  }
  printf("| %-20s | %s | %lld x %lld x %lld | %.0f | %.0f ", s.name, dtype == ZS_F32 ? "f32 " : "bf16", (long long)s.m,
         (long long)s.n, (long long)s.k, flops / median(ours) / 1e9, flops / best(ours) / 1e9);
  if (!theirs.empty()) {
    printf("| %.0f | %.0f | %.2f | %.2f ", flops / median(theirs) / 1e9, flops / best(theirs) / 1e9,
           median(theirs) / median(ours), best(theirs) / best(ours));
  }
  printf("|\n");
  fflush(stdout);
}

}  // namespace

int main(int argc, char **argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 9;
  if (argc > 3) threads = atoi(argv[3]);
  zs::ThreadPool pool(threads);
  for (int dtype : {ZS_F32, ZS_BF16})
    for (const Shape &shape : shapes)
      if (argc < 3 || strstr(shape.name, argv[2])) measure(shape, dtype, rounds, pool);
  return 0;
}
