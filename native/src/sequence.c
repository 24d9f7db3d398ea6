/* SPDX-License-Identifier: Apache-2.0 */
#include "sequence.h"

#include <string.h>

#include "layers.h"
#include "learn.h"
#include "samples.h"
#include "sequence_steps.h"
#include "traces.h"

/* n values from value `at` of a sample on: pair i mod pairs for value i of the sample. */
static void rescale_part(const el_net *net, float *y, size_t n, const float *scale, const float *shift, size_t pairs,
                         size_t at) {
  if (n % pairs == 0 && at % pairs == 0) {
    net->k->rescale(y, n, scale, shift, pairs);
    return;
  }
  for (size_t i = 0; i < n; i++) y[i] = y[i] * scale[(at + i) % pairs] + shift[(at + i) % pairs];
}

/* Where step t of a sample stands in the data: padding behind a sequence goes to its front. */
static size_t raw_step(const el_net *net, uint32_t t, uint64_t b) {
  const uint32_t behind = net->sequence->begins ? net->sequence->behind[b] : 0;
  return t > behind ? t - behind : 0;
}

/* One step (B,D) of the feed's samples from sample `from` of the batch on. */
static void load_step(const el_net *net, float *y, size_t n, uint32_t t, uint64_t from, uint32_t batch) {
  const feed *f = &net->feed;
  const el_samples *s = f->samples;
  const int rescaled = s->group == 0 && net->records[0].op == EL_RESCALE;
  const size_t pairs = rescaled ? net->records[0].params / 2 : s->pairs;
  const float *scale = rescaled ? record_params(net, net->records) : s->scale;
  const float *shift = rescaled ? scale + pairs : s->shift;
  for (uint64_t b = from; b < from + batch; b++, y += n) {
    const size_t at = raw_step(net, t, b) * n;
    load_values(net, y, s, (f->order ? f->order[b] : f->first + b) * f->steps * n + at, n);
    if (pairs) rescale_part(net, y, n, scale, shift, pairs, at);
  }
}

int feed_is_finite(const el_net *net, uint32_t batch) {
  const group *g = net->groups + net->feed.samples->group;
  const size_t n = net->records[first_of(net, g)].fan_in_active;
  if (net->sequence->begins) memset(net->sequence->behind, 0, batch * sizeof *net->sequence->behind);
  for (uint32_t t = 0; t < net->feed.steps; t++) {
    load_step(net, net->sequence->x, n, t, 0, batch);
    if (!net->k->finite(net->sequence->x, batch * n)) return 0;
  }
  return 1;
}

void steps_load(const el_net *net, const float *x, size_t n, place p) {
  float *y = net->sequence->x;
  const size_t total = steps_of(net) * n;
  for (uint32_t t = p.step; t < p.step + p.over.steps; t++, y += p.over.batch * n) {
    if (!x) load_step(net, y, n, t, p.from, p.over.batch);
    for (uint64_t b = 0; x && b < p.over.batch; b++) memcpy(y + b * n, x + (p.from + b) * total + t * n, n * sizeof *y);
  }
}

void steps_store(const el_net *net, float *out, const el_record *r, const float *y, place p) {
  const size_t u = r->active, all = steps_of(net), m = p.over.batch;
  if (!r->size || (is_recurrent(r->op) && !(r->flags & EL_FLAG_SEQUENCES))) {
    if (p.step + p.over.steps == all) memcpy(out + p.from * u, y + (p.over.steps - 1) * m * u, m * u * sizeof *y);
    return;
  }
  for (size_t t = 0; t < p.over.steps; t++) {
    for (size_t b = 0; b < m; b++, y += u) memcpy(out + ((p.from + b) * all + p.step + t) * u, y, u * sizeof *y);
  }
}

void steps_forget(const el_net *net, uint32_t first, uint32_t last, uint32_t batch, int learning) {
  for (uint32_t i = first; i <= last; i++) {
    const el_record *r = net->records + i;
    if (!is_recurrent(r->op)) continue;
    const cell *own = cell_of(net, i);
    memset(own->h, 0, (size_t)batch * r->active * sizeof *own->h);
    if (own->c) memset(own->c, 0, (size_t)batch * r->active * sizeof *own->c);
    if (learning && own->trace && is_carried(net)) memset(own->trace, 0, trace_floats(r, batch) * sizeof *own->trace);
  }
}

void steps_advance(const el_net *net, uint32_t first, uint32_t last, stretch over) {
  for (uint32_t i = first; i <= last; i++) {
    if (is_recurrent(net->records[i].op)) cell_advance(net->nodes + i, cell_of(net, i), over);
  }
}

void steps_dropout(const el_net *net, const group *g, uint32_t i, float *y, place p) {
  const el_record *r = net->records + i;
  const size_t u = r->active, all = r->size ? steps_of(net) : 1;
  for (size_t t = p.step; t < p.step + p.over.steps; t++) {
    for (size_t b = p.from; b < p.from + p.over.batch; b++, y += u) {
      dropout_apply(net, y, r, g, (b * all + (r->size ? t : 0)) * u, u);
    }
  }
}

float *steps_forward(const el_net *net, const group *g, uint32_t first, uint32_t last, float *x, place p) {
  for (uint32_t i = first; i <= last; i++) {
    const node *at = net->nodes + i;
    const uint32_t op = at->record->op, rows = (uint32_t)rows_of(p);
    if (is_recurrent(op)) {
      cell_forward(net, at, cell_of(net, i), x, p.over);
    } else if (g && op != EL_DROPOUT) {
      layer_forward(net, g, at, x, rows);
    } else {
      memcpy(at->y, x, (size_t)rows * at->record->active * sizeof *x);
      if (op != EL_DROPOUT) layer_infer(net, at->y, at->record, at->y, rows);
      if (g) steps_dropout(net, g, i, at->y, p);
    }
    x = at->y;
  }
  return x;
}

void sequence_infer(const el_net *net, float *out, uint32_t first, uint32_t last, const float *x, uint32_t batch) {
  place p = {.over = {1, batch, 0, net->sequence->begins}};
  if (!net->feed.goes_on) steps_forget(net, first, last, batch, 0);
  for (; p.step < steps_of(net); p.over.first = ++p.step) {
    steps_load(net, x, net->records[first].fan_in_active, p);
    const float *y = steps_forward(net, NULL, first, last, net->sequence->x, p);
    steps_store(net, out, net->records + last, y, p);
    steps_advance(net, first, last, p.over);
  }
}
