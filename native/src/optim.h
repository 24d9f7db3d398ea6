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

/* What the gradient of a product's weights is made of: x (B,I) with ldx from row to row, d (B,U). */
typedef struct outer {
  const float *x;
  size_t inputs, ldx;
  const float *d;
  size_t units;
  uint32_t batch;
} outer;

/* w (I, ld), the leading U columns: gradient x^T d share, moments as w or NULL under SGD; or, where gradients are
 * collected, sum (I, U) gains x^T d share. */
void learn_product(const el_net *net, float *w, size_t ld, float *sum, float *const moments[2], const outer *p,
                   update by);

/* w (rows, ld), the leading cols columns, by a gradient (rows, cols) that is whole. */
void update_from(const el_net *net, float *w, size_t ld, float *const moments[2], const float *gradient, size_t rows,
                 size_t cols, update by);

/* w (n): gradient sum share */
void update_vector(const el_net *net, float *w, float *const moments[2], const float *sum, size_t n, update by);

#endif
