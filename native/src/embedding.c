/* SPDX-License-Identifier: Apache-2.0 */
#include "embedding.h"

#include <math.h>
#include <string.h>

#include "samples.h"

/* The record that reads tokens, or NULL. */
static const el_record *reader(const el_net *net) {
  const el_record *r = net->records;
  if (r->op == EL_RESCALE && net->n_nodes > 1) r++;
  return r->op == EL_EMBEDDING ? r : NULL;
}

/* NaN is no token either. */
static int is_token(float x, size_t vocabulary) { return x >= 0 && x < (float)vocabulary && x == floorf(x); }

el_status tokens_check(const el_net *net, const float *x, uint32_t batch) {
  const el_record *r = reader(net);
  const size_t n = r ? batch * features_in(r) : 0;
  for (size_t i = 0; i < n; i++) {
    if (!is_token(x[i], weight_rows(r))) return EL_ETOKEN;
  }
  return EL_OK;
}

el_status tokens_check_all(const el_net *net, float *x, const el_samples *s) {
  if (!reader(net) || s->group) return EL_OK;
  for (uint64_t i = 0; i < s->n; i += net->config.batch) {
    const uint32_t batch = s->n - i < net->config.batch ? (uint32_t)(s->n - i) : net->config.batch;
    load_batch(net, x, s, i, NULL, batch);
    if (tokens_check(net, x, batch)) return EL_ETOKEN;
  }
  return EL_OK;
}

void embedding_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch) {
  const float *table = record_params(net, r);
  const size_t n = batch * features_in(r), units = r->active;
  for (size_t i = 0; i < n; i++, y += units) memcpy(y, table + (size_t)x[i] * r->stride, units * sizeof *y);
}

static void scatter(const el_net *net, float *table, size_t stride, const el_record *r, const float *x, const float *d,
                    uint32_t batch, float share) {
  const size_t n = batch * features_in(r), units = r->active;
  for (size_t i = 0; i < n; i++) net->k->axpy(table + (size_t)x[i] * stride, share, d + i * units, units);
}

/* A row is the sum over all places of its token before it moves: one by one, small errors would be lost in rounding. */
static void descend(const el_net *net, const el_record *r, const float *x, const float *d, uint32_t batch, update by) {
  const size_t n = batch * features_in(r), units = r->active;
  float *table = record_params(net, r), *gradient = net->scratch.gradient;
  for (size_t i = 0; i < n; i++) memset(gradient + (size_t)x[i] * units, 0, units * sizeof *gradient);
  scatter(net, gradient, units, r, x, d, batch, by.share);
  for (size_t i = 0; i < n; i++) {
    float *row = gradient + (size_t)x[i] * units;
    net->k->axpy(table + (size_t)x[i] * r->stride, -by.lr, row, units);
    memset(row, 0, units * sizeof *row);
  }
}

void embedding_learn(const el_net *net, const node *at, const float *x, const float *d, uint32_t batch, update by) {
  const el_record *r = at->record;
  const size_t rows = weight_rows(r), units = r->active;
  float *table = record_params(net, r), *gradient = net->scratch.gradient;
  if (at->gradient) {
    scatter(net, at->gradient, units, r, x, d, batch, by.share);
  } else if (net->config.optimizer.kind == EL_SGD) {
    descend(net, r, x, d, batch, by);
  } else {
    memset(gradient, 0, rows * units * sizeof *gradient);
    scatter(net, gradient, units, r, x, d, batch, by.share);
    update_from(net, table, r->stride, moments_of(at, 0, 0), gradient, rows, units, by);
  }
}

void positions_forward(const el_net *net, float *y, const el_record *r, uint32_t batch) {
  const size_t n = features_out(r);
  for (uint32_t b = 0; b < batch; b++, y += n) net->k->axpy(y, 1, record_params(net, r), n);
}
