/* SPDX-License-Identifier: Apache-2.0 */
#include "recurrent.h"

#include <string.h>

#include "cells.h"
#include "product.h"

/* Parameters of a record: W (D,n), V (U,n), biases (n) or NULL; n is gates x units. In use are the first units of every
 * gate, which are `stored` columns apart in rows of ld: of a whole record, all gates are one run of columns. */
typedef struct weights {
  const float *w, *v, *bias, *inner_bias;
  size_t inputs, units, n, stored, ld, run;
  float gain, inner_gain; /* of W and V */
} weights;

static weights weights_of(const el_net *net, const el_record *r) {
  const size_t gates = gates_of(r->op), n = gates * r->active, ld = gates * r->units;
  const float *w = record_params(net, r), *v = w + r->fan_in * ld, *end = v + r->units * ld;
  const int biased = r->flags & EL_FLAG_BIAS;
  return (weights){.w = w,
                   .v = v,
                   .bias = biased ? end : NULL,
                   .inner_bias = biased && r->op == EL_GRU ? end + ld : NULL,
                   .inputs = r->fan_in_active,
                   .units = r->active,
                   .n = n,
                   .stored = r->units,
                   .ld = ld,
                   .run = n == ld ? n : r->active,
                   .gain = product_gain(r),
                   .inner_gain = recurrent_gain(r)};
}

/* y (rows,n) = bias + gain x (rows,k) w, w one of those of `own` */
static void affine(const el_net *net, float *y, const float *x, size_t rows, size_t k, const float *w,
                   const float *bias, float gain, const weights *own) {
  for (size_t at = 0, from = 0; at < own->n; at += own->run, from += own->stored) {
    for (size_t i = 0; bias && i < rows; i++) memcpy(y + i * own->n + at, bias + from, own->run * sizeof *y);
    net_gemm(net, &(gemm_job){.m = rows,
                              .n = own->run,
                              .k = k,
                              .alpha = gain,
                              .beta = bias ? 1 : 0,
                              .a = x,
                              .a_row = k,
                              .a_col = 1,
                              .b = w + from,
                              .b_row = own->ld,
                              .b_col = 1,
                              .c = y + at,
                              .ldc = own->n});
  }
}

/* y (M,n) = 0 for samples that take no part in step t */
static void pass_over(float *y, size_t n, uint32_t t, stretch over) {
  for (size_t b = 0; over.begins && b < over.batch; b++) {
    if (!takes_part(over, t, b)) memset(y + b * n, 0, n * sizeof *y);
  }
}

void cell_forward(const el_net *net, const node *at, const cell *own, const float *x, stretch over) {
  const el_record *r = at->record;
  const weights w = weights_of(net, r);
  const size_t m = over.batch, one = m * w.units;
  affine(net, own->gates, x, over.steps * m, w.inputs, w.w, w.bias, w.gain, &w);
  for (uint32_t t = 0; t < over.steps; t++) {
    float *h = at->y + t * one, *g = own->gates + t * m * w.n, *inner = own->inner + t * one;
    const float *before = t ? h - one : own->h;
    affine(net, own->hidden, before, m, w.units, w.v, w.inner_bias, w.inner_gain, &w);
    if (r->op == EL_GRU) {
      gru_forward(net->k, own->hidden, h, g, inner, before, m, w.units);
    } else if (r->op == EL_LSTM) {
      lstm_forward(net->k, own->hidden, h, g, inner, own->squashed + t * one, t ? inner - one : own->c, m, w.units);
    } else {
      simple_forward(net->k, own->hidden, h, g, r->arg[0] != 0, one);
    }
    pass_over(h, w.units, t, over);
    if (r->op == EL_LSTM) pass_over(inner, w.units, t, over);
  }
}

/* out (rows,k) = beta out + gain times the first n columns of errors d (rows,ldd) times those of w (k,n), one of those
 * of `own`, transposed */
static void back_through(const el_net *net, float *out, float beta, const float *d, size_t ldd, const float *w,
                         float gain, const weights *own, size_t rows, size_t k, size_t n) {
  const size_t run = own->run < n ? own->run : n;
  for (size_t at = 0, from = 0; at < n; at += run, from += own->stored) {
    net_gemm(net, &(gemm_job){.m = rows,
                              .n = k,
                              .k = run,
                              .alpha = gain,
                              .beta = at ? 1 : beta,
                              .a = d + at,
                              .a_row = ldd,
                              .a_col = 1,
                              .b = w + from,
                              .b_row = 1,
                              .b_col = own->ld,
                              .c = out,
                              .ldc = k});
  }
}

/* How far errors go back: through all that a step reads, or along what its gates keep. */
typedef enum reach { ALL, KEPT } reach;

/* Errors of all gates, last step first; own->carry has those that come from beyond the last step. */
static void gates_back(const el_net *net, const node *at, const cell *own, const weights *w, float *d, stretch over,
                       reach far) {
  const el_record *r = at->record;
  const size_t m = over.batch, u = w->units, one = m * u;
  const int is_gru = r->op == EL_GRU, adds = is_gru || far == ALL;
  float *down = own->carry[0], *state = own->carry[1];
  for (uint32_t t = over.steps; t-- > 0;) {
    float *dh = d + t * one, *g = own->gates + t * m * w->n, *inner = own->inner + t * one;
    const float *h = at->y + t * one, *before = t ? h - one : own->h;
    if (adds) net->k->axpy(dh, 1, down, one);
    pass_over(dh, u, t, over);
    pass_over(state, u, t, over);
    if (is_gru) {
      gru_back(dh, g, inner, down, before, m, u);
    } else if (r->op == EL_LSTM) {
      lstm_back(dh, g, own->squashed + t * one, state, t ? inner - one : own->c, m, u);
    } else {
      simple_back(net->k, dh, g, h, r->arg[0] != 0, one);
    }
    if (!t) return;
    if (far == KEPT) continue;
    back_through(net, down, is_gru ? 1 : 0, g, w->n, w->v, w->inner_gain, w, m, u, is_gru ? 2 * u : w->n);
    if (is_gru) back_through(net, down, 1, inner, u, w->v + 2 * w->stored, w->inner_gain, w, m, u, u);
  }
}

/* sum (k,ldc) += share x^T d over rows, x (rows,k), the first n columns of d (rows,ldd) */
static void add_product(const el_net *net, float *sum, size_t ldc, const float *x, size_t k, const float *d, size_t ldd,
                        size_t rows, size_t n, float share) {
  if (!rows) return;
  net_gemm(net, &(gemm_job){.m = k,
                            .n = n,
                            .k = rows,
                            .alpha = share,
                            .beta = 1,
                            .a = x,
                            .a_row = 1,
                            .a_col = k,
                            .b = d,
                            .b_row = ldd,
                            .b_col = 1,
                            .c = sum,
                            .ldc = ldc});
}

static void add_columns(const el_net *net, float *sum, const float *d, size_t rows, size_t n, float share) {
  net->k->column_sum(net->scratch.columns, d, rows, n);
  net->k->axpy(sum, share, net->scratch.columns, n);
}

/* The first n columns of V's gradient: each step's errors meet the output before it. */
static void add_recurrent(const el_net *net, const node *at, const cell *own, const weights *w, float *sum,
                          const float *d, size_t ldd, size_t n, stretch over, float share) {
  const size_t m = over.batch;
  add_product(net, sum, w->n, own->h, w->units, d, ldd, m, n, share);
  add_product(net, sum, w->n, at->y, w->units, d + m * ldd, ldd, (over.steps - 1) * m, n, share);
}

static void add_gradients(const el_net *net, const node *at, const cell *own, const weights *w, const float *x,
                          stretch over, float share) {
  const size_t rows = (size_t)over.steps * over.batch, u = w->units, n = w->n;
  float *v = at->gradient + w->inputs * n, *bias = v + u * n;
  const int is_gru = at->record->op == EL_GRU;
  add_product(net, at->gradient, n, x, w->inputs, own->gates, n, rows, n, share * w->gain);
  add_recurrent(net, at, own, w, v, own->gates, n, is_gru ? 2 * u : n, over, share * w->inner_gain);
  if (is_gru) add_recurrent(net, at, own, w, v + 2 * u, own->inner, u, u, over, share * w->inner_gain);
  if (!w->bias) return;
  add_columns(net, bias, own->gates, rows, n, share);
  if (!is_gru) return;
  net->k->axpy(bias + n, share, net->scratch.columns, 2 * u); /* the sums of the line before */
  add_columns(net, bias + n + 2 * u, own->inner, rows, u, share);
}

static void forget_carry(const cell *own, size_t n) {
  for (int i = 0; i < 2; i++) memset(own->carry[i], 0, n * sizeof *own->carry[i]);
}

void cell_back(const el_net *net, const node *at, const cell *own, const float *x, float *d, float *dx, stretch over,
               update by) {
  const weights w = weights_of(net, at->record);
  forget_carry(own, over.batch * w.units);
  gates_back(net, at, own, &w, d, over, ALL);
  add_gradients(net, at, own, &w, x, over, by.share);
  const size_t rows = (size_t)over.steps * over.batch;
  if (dx) back_through(net, dx, 0, own->gates, w.n, w.w, w.gain, &w, rows, w.inputs, w.n);
}

float *cell_back_kept(const el_net *net, const node *at, const cell *own, const float *x, float *d, stretch over,
                      update by) {
  const weights w = weights_of(net, at->record);
  forget_carry(own, over.batch * w.units);
  gates_back(net, at, own, &w, d, over, KEPT);
  add_gradients(net, at, own, &w, x, over, by.share);
  return own->carry[at->record->op == EL_LSTM];
}

const float *cell_slopes(const el_net *net, const node *at, const cell *own, float *d, stretch over) {
  const weights w = weights_of(net, at->record);
  const size_t one = over.batch * w.units;
  float *kept = own->carry[at->record->op == EL_LSTM];
  memset(d, 0, over.steps * one * sizeof *d);
  forget_carry(own, one);
  for (size_t i = 0; i < one; i++) kept[i] = 1;
  gates_back(net, at, own, &w, d, over, KEPT);
  return kept;
}

void cell_advance(const node *at, const cell *own, stretch over) {
  const size_t one = (size_t)over.batch * at->record->active, last = (over.steps - 1) * one;
  memcpy(own->h, at->y + last, one * sizeof *own->h);
  if (own->c) memcpy(own->c, own->inner + last, one * sizeof *own->c);
}
