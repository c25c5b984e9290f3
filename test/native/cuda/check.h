// One case of an operation: the CPU's kernel tells what is right. CUDA's sources, compiled for the host by the shim,
// run on memory between unmapped pages, once flush with its start (aligned) and once with its end, with the threads
// in two orders that must give the same bits (else they race). Inputs and the bytes around must stay as they were.
// The same cases run on a GPU, and on a stand-in for one (stand_in/), twice each.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../../../native/backend/backend.h"

namespace test {

// The value of a tensor before the call, in its own element type.
struct Value {
  int dtype = -1;  // -1: absent
  std::vector<int64_t> dims;
  std::vector<char> bytes;
  int same_as = -1;  // the tensor whose memory this one shares

  int64_t count() const;
  double get(int64_t i) const;
  void set(int64_t i, double x);
};

int64_t size_of(int dtype);
Value absent();
Value normal(int dtype, std::vector<int64_t> dims, double scale = 1);
Value constant(int dtype, std::vector<int64_t> dims, double value);
Value integers(std::vector<int64_t> dims, int64_t begin, int64_t end);  // i32, uniform
Value same(Value value, int as);
int64_t pick(int64_t begin, int64_t end);  // a random integer

constexpr double kExact = 0;             // the CPU's bits
constexpr int64_t kNothing = INT64_MIN;  // nothing is wrong
struct Case {
  zs_op op;
  std::vector<Value> tensors;
  std::vector<double> scalars;
  int outputs;
  double f32 = 2e-6;  // allowed error relative to the larger of 1 and the value; 16-bit results: one last place more
  std::string note = {};
  int64_t told = kNothing;  // the value that the device must tell of as wrong; the CPU's kernel refuses then
};
void check(const Case &c);

std::string title(const Case &c);
zs_tensor tensor_of(const Value &v, char *memory);
zs_call call_of(const Case &c, const std::vector<zs_tensor> &tensors, void *context);

// The device: the shim (device_shim.cpp), or a GPU through the backend's C ABI (device_gpu.cpp).
int device_open();  // 0, or the status to end with
bool device_has(zs_op op);
// What the tensors are after the call. unaligned: at addresses aligned to their elements only; again: a second time,
// where threads can be made to run in another order, in that.
std::vector<Value> run_device(const Case &c, bool unaligned, bool again);
void frame();              // what the device has beside kernels, where it has more
void figures(bool small);  // times, where there are any to take

void expect(bool right, const std::string &what);
int failures();
void summary(bool all);  // all: every operation must have had a case

void elementwise();
void rows();
void optimizers();
void moves();
void attention();
void float8();
void matmul();

inline const int kFloats[] = {ZS_F32, ZS_BF16, ZS_F16};

}  // namespace test
