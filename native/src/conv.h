/* SPDX-License-Identifier: Apache-2.0
 * Convolution as products over tiles of patches: no patch matrix of a whole sample exists. A depthwise convolution
 * runs along rows of its map instead. */
#ifndef EL_CONV_H
#define EL_CONV_H

#include "geometry.h"
#include "net.h"

/* Floats that one thread needs for patches of this record; 0 where the map itself serves. */
size_t conv_patch_floats(const el_record *r);

/* Floats of the weights of this record without gaps, for inputs of which a prefix is in use; 0 where they lie so. */
size_t conv_packed_floats(const el_record *r);

/* y (B,positions,U) = x (B,positions,I) * K + b */
void conv_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch);

/* dx = the error of the input from d (B,positions,U) */
void conv_back(const el_net *net, float *dx, const el_record *r, const float *d, uint32_t batch);

/* gradient (weight_rows, active), packed, gains the sum over samples and positions of patch^T d, times share */
void conv_gradient(const el_net *net, float *gradient, const el_record *r, const float *x, const float *d,
                   uint32_t batch, float share);

#endif
