/* SPDX-License-Identifier: Apache-2.0
 * Placing, inference and one local step. */
#include <math.h>
#include <string.h>

#include "layers.h"
#include "learn.h"
#include "rules.h"
#include "walk.h"

const char *el_status_text(el_status status) {
  switch (status) {
    case EL_OK: return "done";
    case EL_EINVAL: return "an argument or record that the core does not accept";
    case EL_ENOMEM: return "the memory given is smaller than the plan asks for";
    case EL_ENONFINITE: return "a sample, target, loss or gradient is NaN or infinite";
    case EL_EFORMAT: return "not a model file of this version";
    case EL_ELABEL: return "a label is outside the classes of the net";
    case EL_ETHREAD: return "a thread could not be started";
    case EL_EBATCH: return "batch normalisation cannot learn from one sample";
  }
  return "unknown status";
}

el_status el_net_size(const el_record *records, uint32_t n_records, const el_config *config, el_sizes *sizes) {
  if (!sizes) return EL_EINVAL;
  const el_status status = records_check(records, n_records, config);
  if (status) return status;
  arena measure = {0};
  void *pool_memory;
  *sizes = (el_sizes){0};
  walk(records, n_records, config, &measure, sizes, &pool_memory);
  return measure.failed ? EL_EINVAL : EL_OK;
}

static int params_inside(const el_record *records, uint32_t n, uint64_t n_params) {
  for (uint32_t i = 0; i < n; i++) {
    if ((uint64_t)records[i].offset + records[i].params > n_params) return 0;
  }
  return 1;
}

el_status el_net_init(el_net **out, void *mem, size_t size, const el_record *records, uint32_t n_records, float *params,
                      uint64_t n_params, const el_config *config) {
  if (!out || !mem || !params || (uintptr_t)mem % 64) return EL_EINVAL;
  *out = NULL;
  const el_status status = records_check(records, n_records, config);
  if (status) return status;
  const kernel_table *kernels = kernels_for(config->isa);
  if (!kernels || !params_inside(records, n_records, n_params)) return EL_EINVAL;
  arena a = {.base = mem, .size = size};
  el_sizes sizes;
  void *pool_memory = NULL;
  el_net *net = walk(records, n_records, config, &a, &sizes, &pool_memory);
  if (!net) return EL_ENOMEM;
  net->k = kernels;
  net->params = params;
  if (config->threads > 1 && pool_start(&net->pool, pool_memory, config->threads)) return EL_ETHREAD;
  *out = net;
  return EL_OK;
}

void el_net_close(el_net *net) {
  if (!net) return;
  pool_stop(net->pool);
  net->pool = NULL;
}

uint32_t el_net_groups(const el_net *net) { return net->n_groups; }

void *el_net_state(el_net *net, uint64_t *bytes) {
  *bytes = net->state_bytes;
  return net->state;
}

el_status el_net_keep(el_net *net) {
  if (!net->kept) return EL_EINVAL;
  memcpy(net->kept, net->params, net->n_params * sizeof *net->kept);
  return EL_OK;
}

el_status el_net_revert(el_net *net) {
  if (!net->kept) return EL_EINVAL;
  memcpy(net->params, net->kept, net->n_params * sizeof *net->kept);
  return EL_OK;
}

/* Runs records [first, last] in inference, from x to where the result lies: back and forth between the ends. */
static float *infer(const el_net *net, uint32_t first, uint32_t last, float *x, uint32_t batch) {
  float *low = net->region, *high = net->region + net->region_floats;
  for (uint32_t i = first; i <= last; i++) {
    const el_record *r = net->records + i;
    float *y = x;
    if (r->op == EL_DENSE) y = x == low ? high - ((size_t)batch * r->active + 15) / 16 * 16 : low;
    layer_infer(net, y, r, x, batch);
    x = y;
  }
  return x;
}

el_status el_net_forward(el_net *net, const el_samples *s, float *out) {
  if (!net || !s || !s->x || !out) return EL_EINVAL;
  const size_t in = net->records[0].fan_in_active, units = net->records[net->n_nodes - 1].active;
  for (uint64_t i = 0; i < s->n; i += net->config.batch) {
    const uint32_t batch = s->n - i < net->config.batch ? (uint32_t)(s->n - i) : net->config.batch;
    load_batch(net, net->region, s, i, NULL, batch);
    if (!net->k->finite(net->region, batch * in)) return EL_ENONFINITE;
    const float *y = infer(net, 0, net->n_nodes - 1, net->region, batch);
    memcpy(out + i * units, y, batch * units * sizeof *out);
  }
  return EL_OK;
}

/* Moments of the parameters that begin `skip` floats into a record. */
typedef struct moments {
  float *of[2];
} moments;

static moments moments_past(const node *at, size_t skip) {
  moments m = {{NULL, NULL}};
  for (int i = 0; i < 2; i++) m.of[i] = at->moments[i] ? at->moments[i] + skip : NULL;
  return m;
}

static void update_record(const el_net *net, const node *at, const float *x, const float *d, uint32_t batch,
                          update by) {
  const el_record *r = at->record;
  float *w = record_params(net, r), *columns = net->scratch.columns;
  if (r->op == EL_BATCHNORM) {
    batchnorm_move(net, at);
    /* columns hold [sum d xhat, sum d] from layer_back; gamma and beta lie apart by units */
    const moments beta = moments_past(at, r->units);
    update_vector(net, w, at->moments, columns, r->active, batch, by);
    update_vector(net, w + r->units, beta.of, columns + r->active, r->active, batch, by);
    return;
  }
  const size_t weights = (size_t)r->fan_in * r->stride;
  update_matrix(net, w, r->stride, at->moments, x, r->fan_in_active, d, r->active, batch, by);
  if (!(r->flags & EL_FLAG_BIAS)) return;
  const moments bias = moments_past(at, weights);
  net->k->column_sum(columns, d, batch, r->active);
  update_vector(net, w + weights, bias.of, columns, r->active, batch, by);
}

/* Backward through one group, last record first; each weight moves as soon as its error is known and passed on. */
static el_status group_back(const el_net *net, const group *g, uint32_t batch, update by) {
  float *d = net->scratch.d, *other = net->scratch.d2;
  for (uint32_t i = g->last + 1; i-- > g->first;) {
    const node *at = net->nodes + i;
    const float *x = i > g->first ? net->nodes[i - 1].y : g->x;
    if (at->record->op == EL_DENSE && i > g->first && net->records[i - 1].op != EL_RESCALE) {
      dense_back(net, other, at->record, d, batch);
    }
    layer_back(net, g, at, d, batch);
    const int learns = at->record->op == EL_DENSE || at->record->op == EL_BATCHNORM;
    if (learns && !net->k->finite(d, (size_t)batch * at->record->active)) return EL_ENONFINITE;
    if (learns) update_record(net, at, x, d, batch, by);
    if (at->record->op == EL_DENSE) {
      float *swap = d;
      d = other;
      other = swap;
    }
  }
  return EL_OK;
}

/* The group's own step: forward, own objective, own update. The next group gets the output from before the update. */
static el_status group_step(el_net *net, uint32_t index, const step *s) {
  group *g = net->groups + index;
  const int is_output = index + 1 == net->n_groups;
  const int learns = is_output || net->config.rule.objective != EL_UNTRAINED;
  for (uint32_t i = g->first; i <= g->last; i++) {
    layer_forward(net, g, net->nodes + i, i > g->first ? net->nodes[i - 1].y : g->x, s->batch);
  }
  if (learns) {
    double loss = 0;
    const uint64_t correct = s->stats->correct;
    objective(net, g, is_output, s, &loss);
    const update by = {s->lr, *g->updates + 1};
    if (!isfinite(loss)) {
      s->stats->correct = correct;
      return EL_ENONFINITE;
    }
    const el_status status = group_back(net, g, s->batch, by);
    if (status) return status;
    if (!is_output) readout_update(net, g, s->batch, by);
    s->stats->loss = loss;
  }
  if (g->dropout && !is_output) dropout_apply(net, g->h, g->dropout, g, s->batch);
  ++*g->updates;
  return EL_OK;
}

el_status train_batch(el_net *net, const step *s, uint32_t first_group, uint32_t last_group) {
  for (uint32_t i = 0; i < net->n_groups && i <= last_group; i++) {
    group *g = net->groups + i;
    if (i >= first_group) {
      const el_status status = group_step(net, i, s);
      if (status) return status;
      continue;
    }
    const float *h = infer(net, g->first, g->last, g->x, s->batch);
    if (h != net->groups[i + 1].x) memmove(net->groups[i + 1].x, h, (size_t)s->batch * g->out * sizeof *h);
  }
  return EL_OK;
}
