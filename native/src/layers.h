/* SPDX-License-Identifier: Apache-2.0
 * What each operation does forward and backward, over kernels. Outputs first, then inputs, then sizes. */
#ifndef EL_LAYERS_H
#define EL_LAYERS_H

#include "net.h"

/* The product, shared out over the net's threads when it is worth waking them. */
void net_gemm(const el_net *net, const gemm_job *job);

/* Whether scale and shift of samples fit what the group reads that they enter. */
int pairs_fit(const el_net *net, const el_samples *samples);

/* Samples first .. first+batch-1 of the data or those that order names, as the group
 * that they enter reads them: x (B,in). */
void load_batch(const el_net *net, float *x, const el_samples *samples, uint64_t first, const uint64_t *order,
                uint32_t batch);

/* n values of the data, from value `at` on, as floats. */
void load_values(const el_net *net, float *y, const el_samples *samples, uint64_t at, size_t n);

/* y = record(x) as in use after training: running statistics, no dropout; an addition is left to the caller, who has
 * both of its inputs. Element-wise operations: y == x. */
void layer_infer(const el_net *net, float *y, const el_record *record, const float *x, uint32_t batch);

/* at->y = record(x) while learning, an addition without what it adds: batch statistics, inner dropout. */
void layer_forward(const el_net *net, const group *g, const node *at, const float *x, uint32_t batch);

/* The running statistics of a normalisation move towards those of the batch that layer_forward() saw. */
void batchnorm_move(const el_net *net, const node *at);

/* d, the error of the record's output, becomes the error of its input where that is element-wise. Normalisation
 * leaves [sum d xhat, sum d] in scratch.columns. */
void layer_back(const el_net *net, const group *g, const node *at, const float *x, float *d, uint32_t batch);

/* dx = the error of the input where the record moves it: products, pooling and attention. */
void layer_back_to(const el_net *net, float *dx, const node *at, const float *x, const float *d, uint32_t batch);

/* Zeroes a share of y and scales the rest, by a mask that is a function of seed, step, block and element; `from` is
 * the element of the batch that y begins with. */
void dropout_apply(const el_net *net, float *y, const el_record *record, const group *g, uint64_t from, size_t n);

#endif
