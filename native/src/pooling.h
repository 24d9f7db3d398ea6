/* SPDX-License-Identifier: Apache-2.0
 * Pooling of maps: the layers, and the adaptive average that objectives see of a map. */
#ifndef EL_POOLING_H
#define EL_POOLING_H

#include "geometry.h"
#include "net.h"

/* y = the pooled x (B,positions,C) */
void pool_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch);

/* dx = the error of the input, from its values x, those of the output y and the error d of that */
void pool_back(const el_net *net, float *dx, const el_record *r, const float *x, const float *y, const float *d,
               uint32_t batch);

/* Sides of what an objective with this grid sees of a map; grid 0: the map itself. */
sides grid_over(sides map, uint32_t grid);

/* What an objective sees of a map: cells of it, one after the other or, by channel, one channel after the other. */
typedef struct raster {
  sides map, cells;
  size_t channels;
  int by_channel;
} raster;

/* q (B,cells,C), or (B,C,cells), = means of h (B,map,C) over cells that cover it (PyTorch's adaptive average
 * pooling). */
void grid_forward(const el_net *net, float *q, const float *h, const raster *g, uint32_t batch);

/* d (B,map,C) = the error of h from that of its means */
void grid_back(const el_net *net, float *d, const float *dq, const raster *g, uint32_t batch);

#endif
