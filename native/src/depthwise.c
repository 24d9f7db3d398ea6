/* SPDX-License-Identifier: Apache-2.0 */
#include "depthwise.h"

#include <string.h>

/* One row of a depthwise output under one tap: the outputs [from, to) whose tap lies inside, and where it lies. */
typedef struct run {
  uint32_t from, to;
  size_t at; /* map position of the first */
} run;

static run run_of(const conv_job *j, uint32_t oh, uint32_t ky, uint32_t kx) {
  const int64_t row = (int64_t)oh * j->v.sh - j->v.top + ky;
  if (row < 0 || row >= j->in.h) return (run){0, 0, 0};
  const int64_t shift = (int64_t)kx - j->v.left;
  const uint32_t from = shift < 0 ? (uint32_t)((-shift + j->v.sw - 1) / j->v.sw) : 0;
  const int64_t last = (int64_t)j->in.w - 1 - shift;
  const uint32_t end = last < 0 ? 0 : (uint32_t)(last / j->v.sw) + 1;
  const uint32_t to = end < j->out.w ? end : j->out.w;
  if (from >= to) return (run){0, 0, 0};
  return (run){from, to, (size_t)(row * j->in.w + (int64_t)from * j->v.sw + shift)};
}

typedef void (*on_run)(const conv_job *j, float *y, const float *x, uint32_t tap, run r);

/* y and x of one sample: the output's and the map's end of a run, whichever way it is walked. */
static void each_run(const conv_job *j, on_run visit, float *y, const float *x) {
  for (uint32_t oh = 0; oh < j->out.h; oh++) {
    for (uint32_t tap = 0; tap < j->v.kh * j->v.kw; tap++) {
      run r = run_of(j, oh, tap / j->v.kw, tap % j->v.kw);
      if (r.to <= r.from) continue;
      r.from += oh * j->out.w, r.to += oh * j->out.w;
      visit(j, y, x, tap, r);
    }
  }
}

static void depthwise_ahead(const conv_job *j, float *y, const float *x, uint32_t tap, run r) {
  const size_t c = j->r->active;
  j->net->k->column_madd(y + r.from * c, c, x + r.at * c, j->v.sw * c, j->weight + (size_t)tap * j->r->stride,
                         r.to - r.from, c);
}

static void depthwise_behind(const conv_job *j, float *dx, const float *d, uint32_t tap, run r) {
  const size_t c = j->r->active;
  j->net->k->column_madd(dx + r.at * c, j->v.sw * c, d + r.from * c, c, j->weight + (size_t)tap * j->r->stride,
                         r.to - r.from, c);
}

static void depthwise_sum(const conv_job *j, float *gradient, const float *x, uint32_t tap, run r) {
  const size_t c = j->r->active;
  j->net->k->column_dot(gradient + tap * c, x + r.at * c, j->v.sw * c, j->d + r.from * c, c, r.to - r.from, c);
}

void depthwise_part(void *argument, uint32_t part, uint32_t parts) {
  const conv_job *j = argument;
  const size_t c = j->r->active, from = (size_t)j->batch * part / parts, to = (size_t)j->batch * (part + 1) / parts;
  const size_t near = positions(j->out) * c, far = positions(j->in) * c;
  for (size_t b = from; b < to; b++) {
    if (j->x) {
      float *y = j->y + b * near;
      memset(y, 0, near * sizeof *y);
      for (size_t i = 0; j->bias && i < near; i += c) memcpy(y + i, j->bias, c * sizeof *y);
      each_run(j, depthwise_ahead, y, j->x + b * far);
    } else {
      memset(j->y + b * far, 0, far * sizeof *j->y);
      each_run(j, depthwise_behind, j->y + b * far, j->d + b * near);
    }
  }
}

void depthwise_gradient(const conv_job *j, float *gradient) {
  const size_t c = j->r->active, near = positions(j->out) * c, far = positions(j->in) * c;
  float *sum = j->net->scratch.patches; /* what is not scaled yet */
  memset(sum, 0, j->kg * c * sizeof *sum);
  for (size_t b = 0; b < j->batch; b++) {
    conv_job one = *j;
    one.d = j->d + b * near;
    each_run(&one, depthwise_sum, sum, j->x + b * far);
  }
  j->net->k->axpy(gradient, j->share, sum, j->kg * c);
}
