/* SPDX-License-Identifier: Apache-2.0
 * The table of kernels made from kernels.def, one per instruction set, and what their parameters mean. */
#ifndef EL_KERNELS_H
#define EL_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* C (m,n) = beta C + alpha A B; A (m,k) and B (k,n) with any row and column strides, C with leading dimension ldc.
 * Each element of C is summed over k in ascending order by one accumulator per 4096/panel-width steps, so that a
 * result does not depend on the other rows and columns computed with it, nor on threads. */
typedef struct gemm_job {
  size_t m, n, k;
  float alpha;
  const float *a;
  size_t a_row, a_col;
  const float *b;
  size_t b_row, b_col;
  float beta;
  float *c;
  size_t ldc;
} gemm_job;

enum { GEMM_PACK = 4096 }; /* floats of packing memory: a panel that stays in the first-level cache */

/* Adam, algorithm 1 of Kingma & Ba 2015; `step` is lr / (1 - beta1^t), `root` is 1 / sqrt(1 - beta2^t). */
typedef struct adam_rate {
  float step, root, beta1, beta2, epsilon;
} adam_rate;

typedef struct code_stream {
  uint64_t seed;
  uint32_t block, target, kind;
  float scale;
} code_stream;

typedef struct dropout_stream {
  uint64_t seed, first; /* first: index in the batch of the first element */
  uint32_t step, block;
  float rate;
} dropout_stream;

/* xhat = (x - mean) inverse and y = xhat gamma + beta, per column; a layer norm finds mean and inverse itself. */
typedef struct affine_rows {
  const float *mean, *inverse, *gamma, *beta;
} affine_rows;

/* Column kernels: x_row and y_row are the floats from one row to the next where rows may lie apart. column_dot and
 * column_madd add to their result; column_sum and column_square begin afresh.
 * max_back: where x is the maximum y, dx takes what is left of the error, so that the first of equals gets it.
 * dot-like results: softmax returns log sum exp of its input; l2, l1, huber and linear replace the code in d by the
 * gradient of the loss of h against it and return the loss. */
typedef struct kernel_table {
  uint32_t lanes; /* floats in a vector */
#define EL_KERNEL(result, name, parameters) result(*name) parameters;
#include "kernels.def"
#undef EL_KERNEL
} kernel_table;

extern const kernel_table kernels_scalar;
extern const kernel_table kernels_avx2;
extern const kernel_table kernels_avx512;
extern const kernel_table kernels_neon;

/* The table of an el_isa, EL_ISA_AUTO included; NULL where it cannot run. */
const kernel_table *kernels_for(uint32_t isa);

#endif
