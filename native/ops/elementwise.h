/* Elementwise operations; f32, bf16, f16 with arithmetic in f32. Outputs may be the same tensor as an input.
 * unary: y = f(x). unary_backward: dx = dy * f'(x); gets x and y, of which either may be absent where f' does
 *   not need it (needs y: relu tanh sigmoid exp sqrt reciprocal; needs x: the others).
 * binary: y = f(a, b), numpy broadcasting by the tensors' dims; y has the broadcast shape.
 * affine: y = x * mul + add. swiglu: y = silu(gate) * up.
 * cast: y = x in y's dtype (any pair; same dtype: copy; round to nearest even; to 8-bit floats as quantize does).
 * fill: y = value, any dtype. */
#ifndef ZS_OPS_ELEMENTWISE_H
#define ZS_OPS_ELEMENTWISE_H
enum { UNARY_GELU_TANH, UNARY_GELU_ERF, UNARY_SILU, UNARY_RELU, UNARY_TANH, UNARY_SIGMOID, UNARY_EXP, UNARY_LOG,
       UNARY_SQRT, UNARY_SQUARE, UNARY_ABS, UNARY_RECIPROCAL };
enum { BINARY_ADD, BINARY_SUB, BINARY_MUL, BINARY_DIV, BINARY_MAX, BINARY_MIN };
enum { UNARY_Y, UNARY_X };                                       /* scalar 0: kind */
enum { UNARY_DX, UNARY_BACKWARD_DY, UNARY_BACKWARD_X, UNARY_BACKWARD_Y }; /* scalar 0: kind */
enum { BINARY_Y, BINARY_A, BINARY_B };                           /* scalar 0: kind */
enum { AFFINE_Y, AFFINE_X };                                     /* scalars: mul, add */
enum { SWIGLU_Y, SWIGLU_GATE, SWIGLU_UP };
enum { SWIGLU_DGATE, SWIGLU_DUP, SWIGLU_BACKWARD_DY, SWIGLU_BACKWARD_GATE, SWIGLU_BACKWARD_UP };
enum { CAST_Y, CAST_X };
enum { FILL_Y }; /* scalar 0: value */
#endif
