/* SPDX-License-Identifier: Apache-2.0 */
#include "optim.h"

#include <math.h>

#include "product.h"

static adam_rate rate_of(const el_optimizer *o, update by) {
  const double t = by.count;
  return (adam_rate){.step = (float)(by.lr / (1 - pow((double)o->beta1, t))),
                     .root = (float)(1 / sqrt(1 - pow((double)o->beta2, t))),
                     .beta1 = o->beta1,
                     .beta2 = o->beta2,
                     .epsilon = o->epsilon};
}

moments moments_of(const node *at, int part, size_t row) {
  const segment *widest = at->widest;
  moments m = {{NULL, NULL}, widest[part].cols};
  size_t from = packed_row(widest[part], row);
  for (int p = 0; p < part; p++) from += segment_floats(widest[p]);
  for (int i = 0; i < 2; i++) m.of[i] = at->moments[i] ? at->moments[i] + from : NULL;
  return m;
}

/* n floats of w, and as many of the moments from float `from` on. */
static void apply(const el_net *net, float *w, const float *g, moments m, size_t from, size_t n, update by) {
  const el_optimizer *o = &net->config.optimizer;
  if (o->kind == EL_SGD) {
    net->k->axpy(w, -by.lr, g, n);
  } else if (o->kind == EL_MOMENTUM) {
    net->k->momentum(w, g, m.of[0] + from, n, by.lr, o->momentum);
  } else {
    const adam_rate rate = rate_of(o, by);
    net->k->adam(w, g, m.of[0] + from, m.of[1] + from, n, &rate);
  }
}

/* Rows of w, in one go where there are no gaps. */
static void apply_rows(const el_net *net, float *w, size_t ld, moments m, size_t first, const float *g, size_t rows,
                       size_t cols, update by) {
  if (ld == cols && m.ld == cols) {
    apply(net, w + first * ld, g, m, first * cols, rows * cols, by);
    return;
  }
  for (size_t r = 0; r < rows; r++) {
    apply(net, w + (first + r) * ld, g + r * cols, m, (first + r) * m.ld, cols, by);
  }
}

typedef struct tiles {
  const el_net *net;
  float *w;
  size_t ld;
  moments m;
  const gemm_job *gradient;
  update by;
} tiles;

/* Thread `part` takes every parts-th tile: rows of w whose gradient fits its scratch. */
static void tiles_part(void *argument, uint32_t part, uint32_t parts) {
  const tiles *t = argument;
  const scratch *s = &t->net->scratch;
  float *tile = s->tiles + part * s->tile;
  const size_t rows = s->tile / t->gradient->n, inputs = t->gradient->m;
  for (size_t i = part * rows; i < inputs; i += parts * rows) {
    gemm_job g = *t->gradient;
    g.m = inputs - i < rows ? inputs - i : rows;
    g.a += i * g.a_row;
    g.c = tile;
    t->net->k->gemm(&g, s->packs + (size_t)part * GEMM_PACK);
    apply_rows(t->net, t->w, t->ld, t->m, i, tile, g.m, g.n, t->by);
  }
}

static gemm_job gradient_of(const outer *p, float share) {
  return (gemm_job){.m = p->inputs,
                    .n = p->units,
                    .k = p->batch,
                    .alpha = share,
                    .ldc = p->units,
                    .a = p->x,
                    .a_row = 1,
                    .a_col = p->ldx,
                    .b = p->d,
                    .b_row = p->units,
                    .b_col = 1};
}

static void update_matrix(const el_net *net, float *w, size_t ld, moments m, const outer *p, update by) {
  gemm_job g = gradient_of(p, by.share);
  if (net->config.optimizer.kind == EL_SGD) {
    g.alpha *= -by.lr;
    g.beta = 1;
    g.c = w;
    g.ldc = ld;
    net_gemm(net, &g);
    return;
  }
  tiles job = {net, w, ld, m, &g, by};
  pool_run(p->inputs * p->units < net->scratch.tile * 2 ? NULL : net->pool, tiles_part, &job);
}

void learn_product(const el_net *net, float *w, size_t ld, float *sum, moments m, const outer *p, update by) {
  if (!sum) {
    update_matrix(net, w, ld, m, p, by);
    return;
  }
  gemm_job g = gradient_of(p, by.share);
  g.beta = 1;
  g.c = sum;
  net_gemm(net, &g);
}

void update_from(const el_net *net, float *w, size_t ld, moments m, const float *gradient, size_t rows, size_t cols,
                 update by) {
  apply_rows(net, w, ld, m, 0, gradient, rows, cols, by);
}

void update_vector(const el_net *net, float *w, moments m, const float *sum, size_t n, update by) {
  float *gradient = net->scratch.columns + 3 * n; /* the last of four columns; sums use the first three */
  for (size_t i = 0; i < n; i++) gradient[i] = sum[i] * by.share;
  apply(net, w, gradient, m, 0, n, by);
}
