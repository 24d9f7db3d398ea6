/* SPDX-License-Identifier: Apache-2.0
 * Steps of samples that are none of their sequences. */
#include "samples.h"
#include "sequence.h"

/* Whether all values of a step in the data are the padding. */
static int is_padding(const el_net *net, const el_samples *s, size_t at) {
  const el_record *r = net->records + net->sequence->at.first;
  const size_t n = r->fan_in;
  float *y = net->sequence->x;
  load_values(net, y, s, at * n, n);
  for (size_t i = 0; i < n; i++) {
    if (y[i] != r->arg[1]) return 0;
  }
  return 1;
}

static uint32_t padding_of(const el_net *net, const el_samples *s, uint32_t steps, uint64_t sample, int behind) {
  const size_t at = sample * steps;
  uint32_t n = 0;
  while (n < steps && is_padding(net, s, at + (behind ? steps - 1 - n : n))) n++;
  return n;
}

el_status steps_check_all(const el_net *net, const el_samples *s) {
  if (!net->sequence || !net->sequence->begins || s->group) return EL_OK;
  for (uint64_t i = 0; i < s->n; i++) {
    if (padding_of(net, s, net->sequence->steps, i, 0) == net->sequence->steps) return EL_ESTEPS;
  }
  return EL_OK;
}

el_status feed_align(const el_net *net, uint32_t batch) {
  const sequence *q = net->sequence;
  const feed *f = &net->feed;
  if (!q->begins) return EL_OK;
  if (f->samples->group) return EL_EINVAL; /* what comes from between groups has no padding that could be told */
  for (uint32_t b = 0; b < batch; b++) {
    const uint64_t sample = f->order ? f->order[b] : f->first + b;
    const int goes_on = f->goes_on && q->begun[b];
    q->begins[b] = goes_on ? 0 : padding_of(net, f->samples, f->steps, sample, 0);
    q->behind[b] = f->goes_on || q->begins[b] == f->steps ? 0 : padding_of(net, f->samples, f->steps, sample, 1);
    if (q->begins[b] == f->steps && !f->goes_on) return EL_ESTEPS;
    q->begun[b] |= q->begins[b] < f->steps;
    q->begins[b] += q->behind[b];
  }
  return EL_OK;
}
