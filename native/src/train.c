/* SPDX-License-Identifier: Apache-2.0
 * One local step: a group's forward pass, its own objective, its own update. */
#include <math.h>
#include <string.h>

#include "conv.h"
#include "embedding.h"
#include "layers.h"
#include "learn.h"
#include "residual.h"
#include "rules.h"
#include "sequence.h"

/* A vector's gradient: sum times share, into the weights or into what is collected. */
static void learn_vector(const el_net *net, const node *at, const segment *parts, int p, const float *sum, update by) {
  const segment part = parts[p];
  if (!part.runs.count) return;
  if (at->gradient) {
    const size_t collected = p ? segment_floats(parts[0]) : 0;
    net->k->axpy(at->gradient + collected, by.share, sum, part.cols);
    return;
  }
  update_vector(net, record_params(net, at->record) + part.skip, moments_of(at, p, 0), sum, part.cols, by);
}

/* A gradient that is whole, run after run of its rows. */
static void update_segment(const el_net *net, const node *at, const segment *parts, int p, const float *gradient,
                           update by) {
  const segment part = parts[p];
  float *w = record_params(net, at->record) + part.skip;
  for (size_t i = 0; i < part.runs.count; i++, w += part.runs.stored * part.ld) {
    const moments m = moments_of(at, p, i * part.runs.stored);
    update_from(net, w, part.ld, m, gradient, part.runs.active, part.cols, by);
    gradient += part.runs.active * part.cols;
  }
}

static void learn_matrix(const el_net *net, const node *at, const segment *parts, const float *x, const float *d,
                         uint32_t batch, update by) {
  const el_record *r = at->record;
  const segment part = parts[0];
  float *gradient = at->gradient;
  if (r->op == EL_CONV) {
    gradient = gradient ? gradient : net->scratch.gradient;
    if (!at->gradient) memset(gradient, 0, segment_floats(part) * sizeof *gradient);
    conv_gradient(net, gradient, r, x, d, batch, by.share);
    if (!at->gradient) update_segment(net, at, parts, 0, gradient, by);
    return;
  }
  by.share *= product_gain(r);
  float *w = record_params(net, r) + part.skip;
  for (size_t i = 0; i < part.runs.count; i++, w += part.runs.stored * part.ld) {
    const outer p = {.x = x + i * part.runs.active,
                     .inputs = part.runs.active,
                     .ldx = r->fan_in_active,
                     .d = d,
                     .units = part.cols,
                     .batch = batch};
    learn_product(net, w, part.ld, gradient, moments_of(at, 0, i * part.runs.stored), &p, by);
    gradient = gradient ? gradient + part.runs.active * part.cols : NULL;
  }
}

void learn_record(const el_net *net, const node *at, const float *x, const float *d, uint32_t batch, update by) {
  const el_record *r = at->record;
  float *columns = net->scratch.columns;
  segment part[SEGMENTS];
  segments_of(r, part);
  if (r->op == EL_EMBEDDING) {
    embedding_learn(net, at, x, d, batch, by);
    return;
  }
  if (r->op == EL_POSITIONS) {
    net->k->column_sum(columns, d, batch, part[0].cols);
    learn_vector(net, at, part, 0, columns, by);
    return;
  }
  if (r->op == EL_DENSE || r->op == EL_CONV) {
    learn_matrix(net, at, part, x, d, batch, by);
    if (part[1].runs.count) net->k->column_sum(columns, d, batch * positions(sides_out(r)), r->active);
    learn_vector(net, at, part, 1, columns, by);
    return;
  }
  if (r->op == EL_BATCHNORM) batchnorm_move(net, at);
  learn_vector(net, at, part, 0, columns, by); /* [sum d xhat, sum d] from layer_back */
  learn_vector(net, at, part, 1, columns + r->active, by);
}

/* What a record reads: x in front of the first, which a rescaling works on in place, or the output before it. */
static const float *input_of(const el_net *net, uint32_t first, uint32_t i, const float *x) {
  return i == first || net->records[i - 1].op == EL_RESCALE ? x : net->nodes[i - 1].y;
}

/* The error in front of record i, once an addition has given what goes round the branch that begins there. */
static void rejoin(const el_net *net, const group *g, uint32_t i, float *d, uint32_t batch) {
  const uint32_t at = addition_of(net->records, g->last + 1, i);
  if (at && net->nodes[at].saved) net->k->axpy(d, 1, net->nodes[at].saved, batch * features_in(net->records + i));
}

el_status group_back(const el_net *net, const group *g, uint32_t first, const float *x, uint32_t batch, update by,
                     float **before) {
  float *d = g->error, *other = g->other;
  for (uint32_t i = g->last + 1; i-- > first;) {
    const node *at = net->nodes + i;
    const el_record *r = at->record;
    const float *in = input_of(net, first, i, x);
    const int moves = moves_error(r->op) && (before || (i > first && net->records[i - 1].op != EL_RESCALE));
    if (has_weights(r) && !net->k->finite(d, batch * features_out(r))) return EL_ENONFINITE;
    if (r->op == EL_ADD && at->saved) memcpy(at->saved, d, batch * features_out(r) * sizeof *d);
    if (moves) {
      layer_back_to(net, other, at, in, d, batch);
    } else {
      layer_back(net, g, at, in, d, batch);
    }
    if (has_weights(r)) learn_record(net, at, in, d, batch, by);
    if (moves) {
      float *swap = d;
      d = other;
      other = swap;
    }
    if (i > g->first) rejoin(net, g, i, d, batch);
  }
  if (before) *before = d;
  return EL_OK;
}

void group_forward(const el_net *net, const group *g, uint32_t first, const float *x, uint32_t batch) {
  for (uint32_t i = first; i <= g->last; i++) {
    const node *at = net->nodes + i;
    layer_forward(net, g, at, input_of(net, first, i, x), batch);
    if (at->record->op != EL_ADD) continue;
    const float *from = input_of(net, first, (uint32_t)(at->record->input[1] + 1), x);
    net->k->axpy(at->y, 1, from, batch * features_out(at->record));
  }
}

/* Forward, objective and backward of `count` samples from sample `from` of the batch on. */
static el_status learn_part(el_net *net, group *g, int is_output, const step *s, update by, double *loss) {
  const float *x = g->x + g->from * g->in;
  group_forward(net, g, g->first, x, s->batch);
  float *h = g->h + g->from * g->out;
  if (h != g->y) memcpy(h, g->y, s->batch * g->out * sizeof *h);
  if (!g->learns) return EL_OK;
  objective(net, g, is_output, s, loss);
  if (!isfinite(*loss)) return EL_ENONFINITE;
  const el_status status = group_back(net, g, g->first, x, s->batch, by, NULL);
  if (!status && !is_output) readout_learn(net, g, s->batch, by);
  return status;
}

el_status move_statistics(const el_net *net, const group *g) {
  for (uint32_t i = g->first; i <= g->last; i++) {
    const node *at = net->nodes + i;
    if (at->record->op != EL_BATCHNORM) continue;
    if (!net->k->finite(at->statistics, 2 * (size_t)at->record->active)) return EL_ENONFINITE;
    batchnorm_move(net, at);
  }
  return EL_OK;
}

el_status group_apply(const el_net *net, const group *g, update by) {
  const float limit = net->config.rule.clip;
  const double norm = sqrt((double)net->k->dot(g->sum, g->sum, g->sums));
  if (!isfinite(norm)) return EL_ENONFINITE;
  if (limit > 0 && norm > (double)limit) net->k->scale(g->sum, (float)((double)limit / norm), g->sums);
  for (uint32_t i = g->first; i <= g->last; i++) {
    const node *at = net->nodes + i;
    if (!has_weights(at->record)) continue;
    segment part[SEGMENTS];
    segments_of(at->record, part);
    const float *gradient = at->gradient;
    for (int p = 0; p < SEGMENTS; gradient += segment_floats(part[p]), p++) {
      update_segment(net, at, part, p, gradient, by);
    }
  }
  const size_t k = net->config.rule.targets;
  const moments m = {{g->moments[0], g->moments[1]}, k};
  if (g->readout) update_from(net, g->readout, k, m, g->readout_sum, g->seen, k, by);
  return EL_OK;
}

update update_of(const el_net *net, const group *g, uint32_t batch, float lr) {
  return (update){net->rates ? lr * net->rates[g->block] : lr, 1.0f / (float)batch, *g->updates + 1};
}

void group_begin(const el_net *net, const group *g) {
  const size_t readout = g->readout_sum ? g->seen * net->config.rule.targets : 0;
  if (g->sum) memset(g->sum, 0, (g->sums + readout) * sizeof *g->sum);
}

step slice_of(const el_net *net, const step *s, uint64_t from) {
  const uint32_t micro = micro_of(&net->config);
  step part = *s;
  part.batch = s->batch - (uint32_t)from < micro ? s->batch - (uint32_t)from : micro;
  if (s->labels) part.labels += from;
  if (s->targets) part.targets += from * net->config.rule.targets;
  return part;
}

/* Micro-batch after micro-batch, then one update. */
static el_status learn_all(el_net *net, group *g, int is_output, const step *s, double *loss) {
  const update by = update_of(net, g, s->batch, s->lr);
  el_status status = EL_OK;
  group_begin(net, g);
  for (g->from = 0; g->from < s->batch && !status; g->from += micro_of(&net->config)) {
    const step part = slice_of(net, s, g->from);
    status = learn_part(net, g, is_output, &part, by, loss);
    if (!status && !g->learns) status = move_statistics(net, g);
  }
  return !status && g->sum ? group_apply(net, g, by) : status;
}

/* The next group gets the output from before the update. */
static el_status group_step(el_net *net, uint32_t index, const step *s) {
  group *g = net->groups + index;
  const int is_output = index + 1 == net->n_groups;
  double loss = 0;
  const uint64_t correct = s->stats->correct;
  const el_status status = learn_all(net, g, is_output, s, &loss);
  if (status) {
    s->stats->correct = correct;
    return status;
  }
  if (g->learns) s->stats->loss = loss;
  if (g->dropout && !is_output) dropout_apply(net, g->h, g->dropout, g, 0, s->batch * g->out);
  ++*g->updates;
  return EL_OK;
}

el_status train_batch(el_net *net, const step *s, uint32_t entry, uint32_t first, uint32_t last) {
  for (uint32_t i = entry; i <= last; i++) {
    group *g = net->groups + i;
    const uint32_t end = g->stepped ? net->sequence->last : i; /* what runs step by step runs together */
    if (end >= first) {
      const uint32_t to = end < last ? end : last;
      const el_status status = g->stepped ? sequence_step(net, s, i, first > i ? first : i, to) : group_step(net, i, s);
      if (status) return status;
      i = to;
      continue;
    }
    const uint32_t final = net->groups[end].last;
    const float *h = net_infer(net, g->first, final, g->stepped && net->feed.samples ? NULL : g->x, s->batch);
    const size_t n = s->batch * features_out(net->records + final);
    if (h != net->groups[end + 1].x) memmove(net->groups[end + 1].x, h, n * sizeof *h);
    i = end;
  }
  return EL_OK;
}
