/* SPDX-License-Identifier: Apache-2.0 */
#include "pooling.h"

#include <string.h>

/* Rows and columns [from, to) of a map. */
typedef struct box {
  uint32_t top, bottom, left, right;
} box;

static box clipped(int64_t top, int64_t left, uint32_t h, uint32_t w, sides map) {
  const int64_t bottom = top + h, right = left + w;
  return (box){top < 0 ? 0 : (uint32_t)top, bottom > map.h ? map.h : (uint32_t)bottom, left < 0 ? 0 : (uint32_t)left,
               right > map.w ? map.w : (uint32_t)right};
}

/* What output position (oh, ow) of a pooling record covers. */
static box window_at(const el_record *r, uint32_t oh, uint32_t ow) {
  const sides map = sides_in(r);
  if (r->op == EL_GLOBAL_AVGPOOL) return (box){0, map.h, 0, map.w};
  const window v = window_of(r);
  return clipped((int64_t)oh * v.sh - v.top, (int64_t)ow * v.sw - v.left, v.kh, v.kw, map);
}

static float share_of(box b) { return 1.0f / (float)((b.bottom - b.top) * (b.right - b.left)); }

typedef struct pool_job {
  const el_net *net;
  const el_record *r;
  uint32_t batch;
  const float *x, *y, *d;
  float *to;
} pool_job;

static void largest(const el_net *net, float *y, const float *x, box b, size_t width, size_t c) {
  memcpy(y, x + (b.top * width + b.left) * c, c * sizeof *y);
  for (uint32_t h = b.top; h < b.bottom; h++) {
    for (uint32_t w = b.left; w < b.right; w++) net->k->max_into(y, x + (h * width + w) * c, c);
  }
}

static void mean(const el_net *net, float *y, const float *x, box b, size_t width, size_t c) {
  memset(y, 0, c * sizeof *y);
  for (uint32_t h = b.top; h < b.bottom; h++) {
    for (uint32_t w = b.left; w < b.right; w++) net->k->axpy(y, 1, x + (h * width + w) * c, c);
  }
  net->k->scale(y, share_of(b), c);
}

static void mean_back(const el_net *net, float *dx, const float *d, box b, size_t width, size_t c) {
  for (uint32_t h = b.top; h < b.bottom; h++) {
    for (uint32_t w = b.left; w < b.right; w++) net->k->axpy(dx + (h * width + w) * c, share_of(b), d, c);
  }
}

static void largest_back(const pool_job *j, float *dx, float *left, const float *x, const float *y, box b, size_t width,
                         size_t c) {
  for (uint32_t h = b.top; h < b.bottom; h++) {
    for (uint32_t w = b.left; w < b.right; w++) {
      const size_t at = (h * width + w) * c;
      j->net->k->max_back(dx + at, left, x + at, y, c);
    }
  }
}

static void forward_part(void *argument, uint32_t part, uint32_t parts) {
  const pool_job *j = argument;
  const sides map = sides_in(j->r), out = sides_out(j->r);
  const size_t c = j->r->active, from = (size_t)j->batch * part / parts, to = (size_t)j->batch * (part + 1) / parts;
  float *y = j->to + from * positions(out) * c;
  for (size_t b = from; b < to; b++) {
    const float *x = j->x + b * positions(map) * c;
    for (size_t p = 0; p < positions(out); p++, y += c) {
      const box over = window_at(j->r, (uint32_t)(p / out.w), (uint32_t)(p % out.w));
      (j->r->op == EL_MAXPOOL ? largest : mean)(j->net, y, x, over, map.w, c);
    }
  }
}

static void back_part(void *argument, uint32_t part, uint32_t parts) {
  const pool_job *j = argument;
  const sides map = sides_in(j->r), out = sides_out(j->r);
  const size_t c = j->r->active, from = (size_t)j->batch * part / parts, to = (size_t)j->batch * (part + 1) / parts;
  float *left = j->net->scratch.left + part * j->net->scratch.width;
  for (size_t b = from; b < to; b++) {
    float *dx = j->to + b * positions(map) * c;
    memset(dx, 0, positions(map) * c * sizeof *dx);
    for (size_t p = 0; p < positions(out); p++) {
      const box over = window_at(j->r, (uint32_t)(p / out.w), (uint32_t)(p % out.w));
      const float *d = j->d + (b * positions(out) + p) * c;
      if (j->r->op != EL_MAXPOOL) {
        mean_back(j->net, dx, d, over, map.w, c);
        continue;
      }
      memcpy(left, d, c * sizeof *left);
      largest_back(j, dx, left, j->x + b * positions(map) * c, j->y + (b * positions(out) + p) * c, over, map.w, c);
    }
  }
}

void pool_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch) {
  pool_job j = {.net = net, .r = r, .batch = batch, .x = x, .to = y};
  pool_run(net->pool, forward_part, &j);
}

void pool_back(const el_net *net, float *dx, const el_record *r, const float *x, const float *y, const float *d,
               uint32_t batch) {
  pool_job j = {.net = net, .r = r, .batch = batch, .x = x, .y = y, .d = d, .to = dx};
  pool_run(net->pool, back_part, &j);
}

sides grid_over(sides map, uint32_t grid) {
  return (sides){grid && grid < map.h ? grid : map.h, grid && grid < map.w ? grid : map.w};
}

static box cell_at(sides map, sides cells, uint32_t i, uint32_t j) {
  return (box){i * map.h / cells.h, ((i + 1) * map.h + cells.h - 1) / cells.h, j * map.w / cells.w,
               ((j + 1) * map.w + cells.w - 1) / cells.w};
}

/* One cell's means to where they are seen; the reverse. */
static void put_cell(float *q, const float *means, const raster *g, size_t cell) {
  for (size_t c = 0; c < g->channels; c++) q[c * positions(g->cells) + cell] = means[c];
}

static void take_cell(float *dmeans, const float *dq, const raster *g, size_t cell) {
  for (size_t c = 0; c < g->channels; c++) dmeans[c] = dq[c * positions(g->cells) + cell];
}

void grid_forward(const el_net *net, float *q, const float *h, const raster *g, uint32_t batch) {
  const size_t n = g->channels, count = positions(g->cells);
  for (uint32_t b = 0; b < batch; b++, h += positions(g->map) * n, q += count * n) {
    for (uint32_t i = 0; i < count; i++) {
      float *means = g->by_channel ? net->scratch.columns : q + i * n;
      mean(net, means, h, cell_at(g->map, g->cells, i / g->cells.w, i % g->cells.w), g->map.w, n);
      if (g->by_channel) put_cell(q, means, g, i);
    }
  }
}

void grid_back(const el_net *net, float *d, const float *dq, const raster *g, uint32_t batch) {
  const size_t n = g->channels, count = positions(g->cells);
  memset(d, 0, batch * positions(g->map) * n * sizeof *d);
  for (uint32_t b = 0; b < batch; b++, d += positions(g->map) * n, dq += count * n) {
    for (uint32_t i = 0; i < count; i++) {
      if (g->by_channel) take_cell(net->scratch.columns, dq, g, i);
      const float *dmeans = g->by_channel ? net->scratch.columns : dq + i * n;
      mean_back(net, d, dmeans, cell_at(g->map, g->cells, i / g->cells.w, i % g->cells.w), g->map.w, n);
    }
  }
}
