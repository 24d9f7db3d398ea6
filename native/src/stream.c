/* SPDX-License-Identifier: Apache-2.0
 * Sequences in pieces: states and traces go on from one call to the next. */
#include <math.h>
#include <string.h>

#include "learn.h"
#include "sequence.h"

/* The net begins with its recurrent layers and hands on their last step; scales belong to the features of a step. */
static int streams_fit(const el_net *net, const el_samples *s, uint32_t steps) {
  if (!net || !s || !s->x || !steps || !net->sequence || net->sequence->first) return 0;
  if (s->n != net->config.batch || s->group || s->pairs || s->x_type > EL_FLOAT16) return 0;
  const section at = net->sequence->at;
  uint32_t last = at.first;
  for (uint32_t i = at.first; i <= at.last; i++) last = is_recurrent(net->records[i].op) ? i : last;
  const el_record *first = net->records + at.first;
  if (at.first && net->records[0].op != EL_RESCALE) return 0;
  if (at.first && first->fan_in % (net->records[0].params / 2)) return 0;
  return !(net->records[last].flags & EL_FLAG_SEQUENCES);
}

static el_status begin(el_net *net, const el_samples *s, uint32_t steps) {
  net->feed = (feed){.samples = s, .steps = steps, .goes_on = 1};
  return feed_is_finite(net, net->config.batch) ? feed_align(net, net->config.batch) : EL_ENONFINITE;
}

el_status el_net_stream(el_net *net, const el_samples *s, uint32_t steps, float *out) {
  if (!streams_fit(net, s, steps) || !out) return EL_EINVAL;
  const el_status status = begin(net, s, steps);
  if (!status) outputs_of(net, out, 0, net->n_nodes - 1, NULL, net->config.batch);
  net->feed = (feed){0};
  return status;
}

el_status el_net_stream_step(el_net *net, const el_samples *s, uint32_t steps, float lr, el_stats *stats) {
  if (!streams_fit(net, s, steps) || !net->config.train || !stats || !isfinite(lr)) return EL_EINVAL;
  if (net->config.rule.traces && !net->config.streams) return EL_EINVAL;
  if (micro_of(&net->config) < net->config.batch || net->config.first_group || net->config.n_groups) return EL_EINVAL;
  el_status status = answers_check(net, s);
  if (status) return status;
  el_stats one = {.samples = s->n};
  const step now = {.batch = net->config.batch, .labels = s->labels, .targets = s->targets, .lr = lr, .stats = &one};
  status = begin(net, s, steps);
  if (!status) status = train_batch(net, &now, 0, 0, net->n_groups - 1);
  net->feed = (feed){0};
  if (!status) stats_add(stats, &one);
  return status;
}

/* A stream's share of the traces lies apart in every row of the parameters. */
static void forget_trace(const el_record *r, const cell *own, uint32_t batch, uint32_t stream) {
  const size_t row = (size_t)3 * r->active, rows = own->trace ? recurrent_rows(r) : 0;
  for (size_t i = 0; i < rows; i++) memset(own->trace + (i * batch + stream) * row, 0, row * sizeof(float));
}

el_status el_net_reset(el_net *net, uint32_t stream) {
  if (!net || !net->sequence || stream >= net->config.batch) return EL_EINVAL;
  if (net->sequence->begins) net->sequence->begun[stream] = 0;
  for (uint32_t i = net->sequence->at.first; i <= net->sequence->at.last; i++) {
    const el_record *r = net->records + i;
    if (!is_recurrent(r->op)) continue;
    const cell *own = net->sequence->cells + (i - net->sequence->at.first);
    memset(own->h + (size_t)stream * r->active, 0, r->active * sizeof(float));
    if (own->c) memset(own->c + (size_t)stream * r->active, 0, r->active * sizeof(float));
    forget_trace(r, own, net->config.batch, stream);
  }
  return EL_OK;
}
