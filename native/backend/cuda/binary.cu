// binary: y = f(a, b) with numpy broadcasting. Dims that run on in both operands are merged first, so that equal
// shapes, a scalar and a row over a matrix (the cases of training) are one or two dims; an operand that is
// contiguous is read by 16 bytes, a broadcast one from the caches.
#include "device/launch.h"
#include "device/vector.h"
#include "../../ops/elementwise.h"

namespace zs::cuda {
namespace {

struct Steps {
  int ndim;
  int64_t size[ZS_MAX_DIMS], a[ZS_MAX_DIMS], b[ZS_MAX_DIMS];  // innermost first; a step of 0: broadcast
};

// Step of x along y's dim d: 0 where it is broadcast.
int64_t step_of(const zs_tensor &x, const zs_tensor &y, int d) {
  const int i = d - y.ndim + x.ndim;
  if (i < 0 || x.dims[i] == 1) return 0;
  int64_t step = 1;
  for (int j = i + 1; j < x.ndim; j++) step *= x.dims[j];
  return step;
}

Steps steps_of(const zs_tensor &a, const zs_tensor &b, const zs_tensor &y) {
  Steps s{};
  for (int d = y.ndim - 1; d >= 0; d--) {
    if (y.dims[d] == 1) continue;
    const int64_t sa = step_of(a, y, d), sb = step_of(b, y, d);
    const int last = s.ndim - 1;
    if (last >= 0 && sa == s.a[last] * s.size[last] && sb == s.b[last] * s.size[last]) {
      s.size[last] *= y.dims[d];
    } else {
      s.size[s.ndim] = y.dims[d], s.a[s.ndim] = sa, s.b[s.ndim] = sb;
      s.ndim++;
    }
  }
  if (s.ndim == 0) s.ndim = 1, s.size[0] = 1;  // one element
  return s;
}

__device__ inline float apply(int kind, float a, float b) {
  switch (kind) {
    case BINARY_ADD: return a + b;
    case BINARY_SUB: return a - b;
    case BINARY_MUL: return a * b;
    case BINARY_DIV: return a / b;
    case BINARY_MAX: return a > b || a != a ? a : b;
    default: return a < b || a != a ? a : b;
  }
}

// One operand: contiguous, one value, or anything.
enum Form { kWhole, kOne, kAny };

template <class T, bool V, Form A, Form B> struct Binary {
  static constexpr int N = kPack<T>;
  T *y;
  const T *a, *b;
  int kind;
  Steps steps;

  template <Form form> static __device__ Floats<N> read(const T *x, const int64_t *step, const Steps &s, int64_t i, int n) {
    if constexpr (form == kWhole) return load<V, N>(x + i, n);
    Floats<N> v{};
    if constexpr (form == kOne) {
      const float one = to_float(x[0]);
#pragma unroll
      for (int j = 0; j < N; j++) v.at[j] = one;
    } else {
      // The place of element i, then each next one by counting up the innermost dim.
      int64_t outer = i / s.size[0], inner = i - outer * s.size[0], base = base_of(outer, step, s);
#pragma unroll
      for (int j = 0; j < N; j++) {
        if (j < n) v.at[j] = to_float(x[base + inner * step[0]]);
        if (++inner == s.size[0] && j + 1 < n) inner = 0, base = base_of(++outer, step, s);
      }
    }
    return v;
  }
  static __device__ int64_t base_of(int64_t outer, const int64_t *step, const Steps &s) {
    int64_t base = 0;
#pragma unroll
    for (int d = 1; d < ZS_MAX_DIMS; d++) {
      if (d >= s.ndim) break;
      const int64_t next = outer / s.size[d];
      base += (outer - next * s.size[d]) * step[d];
      outer = next;
    }
    return base;
  }
  __device__ void operator()(int64_t i, int n) const {
    Floats<N> v = read<A>(a, steps.a, steps, i, n);
    const Floats<N> w = read<B>(b, steps.b, steps, i, n);
#pragma unroll
    for (int j = 0; j < N; j++) v.at[j] = apply(kind, v.at[j], w.at[j]);
    store<V>(y + i, v, n);
  }
};

Form form_of(int64_t count, int64_t y_count) { return count == y_count ? kWhole : count == 1 ? kOne : kAny; }

// The forms that training meets have kernels of their own: one operand is whole. The rest, and what is not aligned, shares one
// that reads both from anywhere.
template <class Body> int32_t by_forms(Form a, Form b, Body body) {
  using Whole = std::integral_constant<Form, kWhole>;
  using One = std::integral_constant<Form, kOne>;
  using Any = std::integral_constant<Form, kAny>;
  if (a == kWhole && b == kWhole) return body(Whole{}, Whole{});
  if (a == kWhole) return b == kOne ? body(Whole{}, One{}) : body(Whole{}, Any{});
  if (b == kWhole) return a == kOne ? body(One{}, Whole{}) : body(Any{}, Whole{});
  return body(Any{}, Any{});
}

}  // namespace

int32_t binary(zs_call *call) {
  const zs_tensor *t = call->tensors;
  const int64_t count = t[BINARY_Y].count;
  if (count == 0) return ZS_OK;
  const Steps steps = steps_of(t[BINARY_A], t[BINARY_B], t[BINARY_Y]);
  const bool wide = aligned(call, {BINARY_Y, BINARY_A, BINARY_B});
  const Form a_form = form_of(t[BINARY_A].count, count), b_form = form_of(t[BINARY_B].count, count);
  return by_float(call, dtype_of(call, BINARY_Y), [&]<class T>(T) {
    const auto run = [&](auto v, auto a, auto b) {
      const Binary<T, v.value, a.value, b.value> body{data<T>(call, BINARY_Y), data<T>(call, BINARY_A), data<T>(call, BINARY_B),
                                                      static_cast<int>(integer(call, 0)), steps};
      return run_packs<kPack<T>>(call, count, body);
    };
    if (!wide) return run(std::false_type{}, std::integral_constant<Form, kAny>{}, std::integral_constant<Form, kAny>{});
    return by_forms(a_form, b_form, [&](auto a, auto b) { return run(std::true_type{}, a, b); });
  });
}

}  // namespace zs::cuda
