/* SPDX-License-Identifier: Apache-2.0 */
#include "conv.h"

#include <string.h>

#include "depthwise.h"

enum { PATCH = 1 << 15, LEAST = 32, MOST = 512 }; /* floats of a tile, and its rows: within the second-level cache */

static int is_pointwise(const el_record *r) {
  return r->window == 0x01010101u && conv_groups(r) == 1; /* then a patch is a position of the map */
}

static int is_depthwise(const el_record *r) { return conv_groups(r) == r->fan_in && r->units == r->fan_in; }

static size_t tile_rows(const el_record *r) {
  const size_t kg = weight_rows(r), all = positions(sides_out(r));
  size_t rows = MOST;
  if (kg > PATCH / MOST) rows = PATCH / kg;
  if (rows < LEAST) rows = LEAST;
  return all && all < rows ? all : rows;
}

/* Narrower inputs have more rows to a tile, though never more floats than PATCH or all their rows. */
size_t conv_patch_floats(const el_record *r) {
  const size_t kg = weight_rows(r);
  if (is_depthwise(r)) return kg * r->fan_in; /* sums of its gradient */
  if (is_pointwise(r)) return 0;
  const size_t all = positions(sides_out(r)) * kg, most = all < PATCH ? all : PATCH, now = tile_rows(r) * kg;
  return r->flags & EL_FLAG_NESTED && now < most ? most : now;
}

size_t conv_packed_floats(const el_record *r) {
  return conv_groups(r) > 1 || is_pointwise(r) ? 0 : weight_rows(r) * r->active;
}

/* What is in use of each tap's rows, next to each other: one product serves a tile then. */
static const float *packed_weights(const el_net *net, const el_record *r) {
  const row_runs runs = runs_of(r);
  const float *from = record_params(net, r);
  float *to = net->scratch.weights;
  for (size_t i = 0; i < runs.count; i++, from += (runs.stored - runs.active) * r->stride) {
    for (size_t row = 0; row < runs.active; row++, from += r->stride, to += r->active) {
      memcpy(to, from, r->active * sizeof *to);
    }
  }
  return net->scratch.weights;
}

static conv_job job_of(const el_net *net, const el_record *r, uint32_t batch) {
  conv_job j = {.net = net, .r = r, .v = window_of(r), .in = sides_in(r), .out = sides_out(r), .batch = batch};
  const int packed = is_cut(r) && !is_pointwise(r);
  j.channels = runs_of(r).active;
  j.groups = r->fan_in_active / j.channels;
  j.kg = weight_rows(r);
  j.ug = r->active / j.groups;
  j.ld = packed ? r->active : r->stride;
  j.gain = product_gain(r);
  j.rows = tile_rows(r);
  j.tiles = (positions(j.out) + j.rows - 1) / j.rows;
  j.weight = packed ? packed_weights(net, r) : record_params(net, r);
  j.bias = r->flags & EL_FLAG_BIAS ? record_params(net, r) + bias_at(r) : NULL;
  return j;
}

/* A tile: positions first .. first+count-1 of one sample, for the channels of one group. */
typedef struct tile_of {
  size_t sample, first, count, group;
} tile_of;

static tile_of tile_at(const conv_job *j, size_t index) {
  const size_t first = index % j->tiles * j->rows, left = positions(j->out) - first;
  return (tile_of){index / j->tiles, first, left < j->rows ? left : j->rows, 0};
}

/* The part of a window's row of taps that lies inside the map: [from, to) */
typedef struct span {
  uint32_t from, to;
  int64_t at; /* map column of tap 0 */
} span;

static span taps_inside(uint32_t out, uint32_t stride, uint32_t pad, uint32_t kernel, uint32_t side) {
  span s = {0, kernel, (int64_t)out * stride - pad};
  if (s.at < 0) s.from = -s.at < kernel ? (uint32_t)-s.at : kernel;
  if (s.at + kernel > side) s.to = s.at < side ? (uint32_t)(side - s.at) : 0;
  if (s.to < s.from) s.to = s.from;
  return s;
}

/* One row of taps of a patch: kw positions next to each other in the map, c channels each. */
static void copy_taps(float *to, const float *row, const conv_job *j, span s, size_t channel) {
  const size_t c = j->channels, all = j->r->fan_in_active;
  memset(to, 0, s.from * c * sizeof *to);
  memset(to + s.to * c, 0, (j->v.kw - s.to) * c * sizeof *to);
  const float *from = row + (s.at + s.from) * (int64_t)all + (int64_t)channel;
  if (c == all) {
    memcpy(to + s.from * c, from, (s.to - s.from) * c * sizeof *to);
    return;
  }
  for (uint32_t t = s.from; t < s.to; t++, from += all) memcpy(to + t * c, from, c * sizeof *to);
}

/* patches (count, rows of taps [ky0, ky1) of kg) of a tile */
static void gather(float *patches, const conv_job *j, tile_of t, uint32_t ky0, uint32_t ky1) {
  const size_t width = j->v.kw * j->channels;
  const float *sample = j->x + t.sample * positions(j->in) * j->r->fan_in_active;
  for (size_t i = 0; i < t.count; i++) {
    const uint32_t oh = (uint32_t)((t.first + i) / j->out.w), ow = (uint32_t)((t.first + i) % j->out.w);
    const span across = taps_inside(ow, j->v.sw, j->v.left, j->v.kw, j->in.w);
    const int64_t top = (int64_t)oh * j->v.sh - j->v.top;
    for (uint32_t ky = ky0; ky < ky1; ky++, patches += width) {
      if (top + ky < 0 || top + ky >= j->in.h) {
        memset(patches, 0, width * sizeof *patches);
      } else {
        copy_taps(patches, sample + (top + ky) * (int64_t)(j->in.w * (size_t)j->r->fan_in_active), j, across,
                  t.group * j->channels);
      }
    }
  }
}

/* The reverse: what patches hold is added to the map dx. */
static void scatter(float *dx, const float *patches, const conv_job *j, tile_of t) {
  const size_t c = j->channels, all = j->r->fan_in_active;
  float *sample = dx + t.sample * positions(j->in) * all + t.group * c;
  for (size_t i = 0; i < t.count; i++) {
    const uint32_t oh = (uint32_t)((t.first + i) / j->out.w), ow = (uint32_t)((t.first + i) % j->out.w);
    const span across = taps_inside(ow, j->v.sw, j->v.left, j->v.kw, j->in.w);
    const int64_t top = (int64_t)oh * j->v.sh - j->v.top;
    for (uint32_t ky = 0; ky < j->v.kh; ky++, patches += j->v.kw * c) {
      if (top + ky < 0 || top + ky >= j->in.h) continue;
      float *row = sample + ((top + ky) * (int64_t)j->in.w + across.at) * (int64_t)all;
      if (c == all) {
        const size_t skip = across.from * c;
        j->net->k->axpy(row + skip, 1, patches + skip, (across.to - across.from) * c);
        continue;
      }
      for (uint32_t k = across.from; k < across.to; k++) j->net->k->axpy(row + k * all, 1, patches + k * c, c);
    }
  }
}

static float *patches_of(const conv_job *j, uint32_t part) {
  return j->net->scratch.patches + part * j->net->scratch.patch;
}

static float *pack_of(const conv_job *j, uint32_t part) { return j->net->scratch.packs + (size_t)part * GEMM_PACK; }

/* Patches of a tile, or the place in the map that serves as such. */
static const float *patches_at(const conv_job *j, tile_of t, uint32_t part) {
  if (is_pointwise(j->r)) return j->x + (t.sample * positions(j->in) + t.first) * j->r->fan_in_active;
  gather(patches_of(j, part), j, t, 0, j->v.kh);
  return patches_of(j, part);
}

static void forward_tile(const conv_job *j, tile_of t, uint32_t part) {
  const size_t u = j->r->active;
  float *y = j->y + (t.sample * positions(j->out) + t.first) * u;
  for (size_t i = 0; j->bias && i < t.count; i++) memcpy(y + i * u, j->bias, u * sizeof *y);
  for (t.group = 0; t.group < j->groups; t.group++) {
    const gemm_job g = {.m = t.count,
                        .n = j->ug,
                        .k = j->kg,
                        .alpha = j->gain,
                        .beta = j->bias ? 1 : 0,
                        .a = patches_at(j, t, part),
                        .a_row = j->kg,
                        .a_col = 1,
                        .b = j->weight + t.group * j->ug,
                        .b_row = j->ld,
                        .b_col = 1,
                        .c = y + t.group * j->ug,
                        .ldc = u};
    j->net->k->gemm(&g, pack_of(j, part));
  }
}

static void forward_part(void *argument, uint32_t part, uint32_t parts) {
  const conv_job *j = argument;
  const size_t all = j->tiles * j->batch, from = all * part / parts, to = all * (part + 1) / parts;
  for (size_t i = from; i < to; i++) forward_tile(j, tile_at(j, i), part);
}

static void back_tile(const conv_job *j, tile_of t, uint32_t part) {
  const size_t u = j->r->active;
  const int direct = is_pointwise(j->r);
  float *whole = j->y + (t.sample * positions(j->in) + t.first) * j->r->fan_in_active;
  for (t.group = 0; t.group < j->groups; t.group++) {
    float *patches = direct ? whole : patches_of(j, part);
    const gemm_job g = {.m = t.count,
                        .n = j->kg,
                        .k = j->ug,
                        .alpha = j->gain,
                        .a = j->d + (t.sample * positions(j->out) + t.first) * u + t.group * j->ug,
                        .a_row = u,
                        .a_col = 1,
                        .b = j->weight + t.group * j->ug,
                        .b_row = 1,
                        .b_col = j->ld,
                        .c = patches,
                        .ldc = j->kg};
    j->net->k->gemm(&g, pack_of(j, part));
    if (!direct) scatter(j->y, patches, j, t);
  }
}

/* Tiles of one sample overlap in the map, so a sample belongs to one thread. */
static void back_part(void *argument, uint32_t part, uint32_t parts) {
  const conv_job *j = argument;
  const size_t from = (size_t)j->batch * part / parts * j->tiles, to = (size_t)j->batch * (part + 1) / parts * j->tiles;
  const size_t sample = positions(j->in) * j->r->fan_in_active;
  memset(j->y + from / j->tiles * sample, 0, (to - from) / j->tiles * sample * sizeof *j->y);
  for (size_t i = from; i < to; i++) back_tile(j, tile_at(j, i), part);
}

/* Each thread sums its own rows of taps over all tiles, in one order whatever the threads; 1 x 1 kernels and 1-D ones
 * have a single row of taps and are shared out by columns. */
static void gradient_part(void *argument, uint32_t part, uint32_t parts) {
  const conv_job *j = argument;
  const int by_taps = j->v.kh >= parts;
  const uint32_t ky0 = by_taps ? j->v.kh * part / parts : 0, ky1 = by_taps ? j->v.kh * (part + 1) / parts : j->v.kh;
  const size_t u0 = by_taps ? 0 : j->ug * part / parts, u1 = by_taps ? j->ug : j->ug * (part + 1) / parts;
  const size_t width = j->v.kw * j->channels, rows = (ky1 - ky0) * width, u = j->r->active;
  for (size_t i = 0; i < j->tiles * j->batch && u1 > u0; i++) {
    tile_of t = tile_at(j, i);
    for (t.group = 0; t.group < j->groups; t.group++) {
      const int direct = is_pointwise(j->r);
      const float *patches = direct ? patches_at(j, t, part) : patches_of(j, part);
      if (!direct) gather(patches_of(j, part), j, t, ky0, ky1);
      const gemm_job g = {.m = rows,
                          .n = u1 - u0,
                          .k = t.count,
                          .alpha = j->share * j->gain,
                          .beta = 1,
                          .a = patches,
                          .a_row = 1,
                          .a_col = rows,
                          .b = j->d + (t.sample * positions(j->out) + t.first) * u + t.group * j->ug + u0,
                          .b_row = u,
                          .b_col = 1,
                          .c = j->y + ky0 * width * u + t.group * j->ug + u0,
                          .ldc = u};
      j->net->k->gemm(&g, pack_of(j, part));
    }
  }
}

void conv_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch) {
  conv_job j = job_of(net, r, batch);
  j.x = x, j.y = y;
  pool_run(net->pool, is_depthwise(r) ? depthwise_part : forward_part, &j);
}

void conv_back(const el_net *net, float *dx, const el_record *r, const float *d, uint32_t batch) {
  conv_job j = job_of(net, r, batch);
  j.d = d, j.y = dx;
  pool_run(net->pool, is_depthwise(r) ? depthwise_part : back_part, &j);
}

void conv_gradient(const el_net *net, float *gradient, const el_record *r, const float *x, const float *d,
                   uint32_t batch, float share) {
  conv_job j = job_of(net, r, batch);
  j.x = x, j.d = d, j.y = gradient, j.share = share;
  if (is_depthwise(r)) {
    depthwise_gradient(&j, gradient);
  } else {
    pool_run(net->pool, gradient_part, &j);
  }
}
