/* SPDX-License-Identifier: Apache-2.0 */
#include "attention.h"

#include <math.h>
#include <string.h>

/* One head of one sample: T positions, U units of the head; rows of x lie 3 x active apart, those of y active. */
typedef struct head {
  const el_net *net;
  size_t t, u, from, to; /* from, to: floats from row to row of x and of y */
  float *p, *dp, *pack;  /* (T,T) shares and their error */
  float scale;
} head;

typedef struct attention_job {
  const el_net *net;
  const el_record *r;
  uint32_t batch;
  const float *x, *d;
  float *y;
} attention_job;

size_t attention_floats(const el_record *r, int train) {
  const size_t t = positions(sides_in(r));
  return r->op == EL_ATTENTION ? (train ? 2 : 1) * t * t : 0;
}

/* c (m,n) = alpha a b, a (m,k) in rows, b (k,n) as its strides say */
static void product(const head *h, float *c, size_t ldc, const float *a, size_t a_row, size_t a_col, const float *b,
                    size_t b_row, size_t b_col, size_t n, size_t k, float alpha) {
  const gemm_job g = {.m = h->t,
                      .n = n,
                      .k = k,
                      .alpha = alpha,
                      .a = a,
                      .a_row = a_row,
                      .a_col = a_col,
                      .b = b,
                      .b_row = b_row,
                      .b_col = b_col,
                      .c = c,
                      .ldc = ldc};
  h->net->k->gemm(&g, h->pack);
}

/* p = softmax(q k^T / sqrt(U)), row by row */
static void shares(const head *h, const float *x) {
  product(h, h->p, h->t, x, h->from, 1, x + h->u, 1, h->from, h->t, h->u, h->scale);
  for (size_t i = 0; i < h->t; i++) h->net->k->softmax(h->p + i * h->t, h->t);
}

static void head_forward(const head *h, float *y, const float *x) {
  shares(h, x);
  product(h, y, h->to, h->p, h->t, 1, x + 2 * h->u, h->from, 1, h->u, h->t, 1);
}

/* dp becomes the error of the scores: p (dp - sum p dp), row by row */
static void scores_back(const head *h) {
  for (size_t i = 0; i < h->t; i++) {
    const float *p = h->p + i * h->t;
    float *dp = h->dp + i * h->t;
    const float mean = h->net->k->dot(p, dp, h->t);
    for (size_t j = 0; j < h->t; j++) dp[j] = p[j] * (dp[j] - mean);
  }
}

static void head_back(const head *h, float *dx, const float *x, const float *d) {
  const float *q = x, *k = x + h->u, *v = k + h->u;
  shares(h, x);
  product(h, dx + 2 * h->u, h->from, h->p, 1, h->t, d, h->to, 1, h->u, h->t, 1);
  product(h, h->dp, h->t, d, h->to, 1, v, 1, h->from, h->t, h->u, 1);
  scores_back(h);
  product(h, dx, h->from, h->dp, h->t, 1, k, h->from, 1, h->u, h->t, h->scale);
  product(h, dx + h->u, h->from, h->dp, 1, h->t, q, h->from, 1, h->u, h->t, h->scale);
}

/* Thread `part` takes its share of the heads of all samples; each writes its own columns. */
static void attention_part(void *argument, uint32_t part, uint32_t parts) {
  const attention_job *j = argument;
  const el_record *r = j->r;
  const scratch *s = &j->net->scratch;
  const size_t t = positions(sides_in(r)), u = r->units / conv_groups(r), heads = r->active / u;
  const size_t all = j->batch * heads, first = all * part / parts, end = all * (part + 1) / parts;
  head h = {.net = j->net, .t = t, .u = u, .from = r->fan_in_active, .to = r->active};
  h.scale = 1.0f / sqrtf((float)u);
  h.p = s->scores + part * s->score;
  h.dp = h.p + t * t;
  h.pack = s->packs + (size_t)part * GEMM_PACK;
  for (size_t i = first; i < end; i++) {
    const size_t b = i / heads, own = i % heads;
    const size_t at = b * t * r->fan_in_active + own * 3 * u, out = b * t * r->active + own * u;
    if (j->d) {
      head_back(&h, j->y + at, j->x + at, j->d + out);
    } else {
      head_forward(&h, j->y + out, j->x + at);
    }
  }
}

void attention_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch) {
  attention_job j = {.net = net, .r = r, .batch = batch, .x = x, .y = y};
  pool_run(net->pool, attention_part, &j);
}

void attention_back(const el_net *net, float *dx, const el_record *r, const float *x, const float *d, uint32_t batch) {
  attention_job j = {.net = net, .r = r, .batch = batch, .x = x, .d = d, .y = dx};
  pool_run(net->pool, attention_part, &j);
}
