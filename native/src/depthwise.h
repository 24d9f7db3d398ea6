/* SPDX-License-Identifier: Apache-2.0
 * Depthwise convolution: along rows of the map, tap by tap, all channels at once. */
#ifndef EL_DEPTHWISE_H
#define EL_DEPTHWISE_H

#include "geometry.h"
#include "net.h"

/* One call, over all its samples; Kg and Ug: rows and columns of the weights of one group, ld from row to row. */
typedef struct conv_job {
  const el_net *net;
  const el_record *r;
  window v;
  sides in, out;
  size_t groups, channels, kg, ug, ld, rows, tiles;
  uint32_t batch;
  float share, gain;
  const float *x, *d, *weight, *bias;
  float *y;
} conv_job;

/* A share of the samples: y = x * K + b, or, without x, y = the error of the input from d. */
void depthwise_part(void *job, uint32_t part, uint32_t parts);

/* gradient (taps, channels) gains the sum over samples and positions, times share. */
void depthwise_gradient(const conv_job *j, float *gradient);

#endif
