/* SPDX-License-Identifier: Apache-2.0
 * Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1) of each sample and head over all positions. The
 * scores of one head at a time are kept, and found again on the way back, so that memory does not grow with them. */
#ifndef EL_ATTENTION_H
#define EL_ATTENTION_H

#include "geometry.h"
#include "net.h"

/* Floats that one thread needs for the scores of a head, and in training their errors; 0 of other records. */
size_t attention_floats(const el_record *r, int train);

/* y (B,positions,U) from x (B,positions,3U), of each head its queries, keys and values beside each other */
void attention_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch);

/* dx (B,positions,3U) = the error of the input, from its values x and the error d (B,positions,U) of the output */
void attention_back(const el_net *net, float *dx, const el_record *r, const float *x, const float *d, uint32_t batch);

#endif
