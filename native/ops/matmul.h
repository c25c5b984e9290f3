/* matmul: y[i] (M,N) = epilogue(alpha * op(a[i]) op(b[i]) + bias) (+ y[i] where accumulate is set), i < batch.
 * op(x) is x or its transpose: a is (M,K), or (K,M) with trans_a; b is (K,N), or (N,K) with trans_b.
 * dtypes: a and b both f32, bf16 or f16; y f32 or a's dtype; bias a's dtype (N); sums in f32.
 * A b of K*N elements serves every i of the batch. y must not overlap an input.
 * Epilogues apply to the finished f32 sum: GELU writes the sum (M,N) to `pre` first where that is given;
 * dGELU multiplies the sum by gelu'(pre_in). accumulate excludes GELU. bias must be absent with dGELU. */
#ifndef ZS_OPS_MATMUL_H
#define ZS_OPS_MATMUL_H
enum { MATMUL_Y, MATMUL_PRE /* optional, y's dtype */, MATMUL_A, MATMUL_B, MATMUL_BIAS /* optional */,
       MATMUL_PRE_IN /* dGELU only, y's dtype */, MATMUL_ALPHA /* optional f32 (1) */ };
enum { MATMUL_BATCH, MATMUL_M, MATMUL_N, MATMUL_K, MATMUL_TRANS_A, MATMUL_TRANS_B, MATMUL_ACCUMULATE, MATMUL_EPILOGUE };
enum { EPILOGUE_NONE, EPILOGUE_GELU_TANH, EPILOGUE_GELU_ERF, EPILOGUE_DGELU_TANH, EPILOGUE_DGELU_ERF };
#endif
