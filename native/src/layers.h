/* SPDX-License-Identifier: Apache-2.0
 * What each operation does forward and backward, over kernels. Outputs first, then inputs, then sizes. */
#ifndef EL_LAYERS_H
#define EL_LAYERS_H

#include "net.h"

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
