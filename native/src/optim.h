/* SPDX-License-Identifier: Apache-2.0
 * Updates. Plain SGD adds the product straight into the weights; momentum and Adam see the gradient in tiles that
 * stay in the cache. No gradient of a whole layer exists anywhere. */
#ifndef EL_OPTIM_H
#define EL_OPTIM_H

#include "net.h"

typedef struct update {
  float lr;
  float share;    /* of each sample in the gradient: 1 / batch */
  uint32_t count; /* updates of this group, this one included: Adam's t */
} update;

/* Rows of what momentum or Adam keep, ld floats from row to row; NULL under SGD, and what it does not keep. */
typedef struct moments {
  float *of[2];
  size_t ld;
} moments;

/* Those of a part of a record, from the stored row `row` on. */
moments moments_of(const node *at, int part, size_t row);

/* What the gradient of a product's weights is made of: x (B,I) with ldx from row to row, d (B,U). */
typedef struct outer {
  const float *x;
  size_t inputs, ldx;
  const float *d;
  size_t units;
  uint32_t batch;
} outer;

/* w (I, ld), the leading U columns: gradient x^T d share, moments m; or, where gradients are collected, sum (I, U)
 * gains x^T d share. */
void learn_product(const el_net *net, float *w, size_t ld, float *sum, moments m, const outer *p, update by);

/* w (rows, ld), the leading cols columns, by a gradient (rows, cols) that is whole. */
void update_from(const el_net *net, float *w, size_t ld, moments m, const float *gradient, size_t rows, size_t cols,
                 update by);

/* w (n): gradient sum share */
void update_vector(const el_net *net, float *w, moments m, const float *sum, size_t n, update by);

#endif
