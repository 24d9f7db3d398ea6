/* SPDX-License-Identifier: Apache-2.0 */
#include "sequence.h"

#include <math.h>
#include <string.h>

#include "layers.h"
#include "learn.h"
#include "rules.h"
#include "traces.h"

/* A stretch of a slice of the batch: its first step, and the sample that the slice begins with. */
typedef struct place {
  uint32_t step;
  uint64_t from;
  stretch over;
} place;

static size_t rows_of(place p) { return (size_t)p.over.steps * p.over.batch; }

static const cell *cell_of(const el_net *net, uint32_t record) {
  return net->sequence->cells + (record - net->sequence->at.first);
}

/* The first of a group's records that is not a rescaling, which is done while loading. */
static uint32_t first_of(const el_net *net, const group *g) {
  return g->first + (net->records[g->first].op == EL_RESCALE);
}

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

static uint32_t steps_of(const el_net *net) { return net->feed.samples ? net->feed.steps : net->sequence->steps; }

/* sequence->x (R,n) = the steps of a stretch, of sequences x (B,T,n) or of the feed where x is NULL */
static void load_steps(const el_net *net, const float *x, size_t n, place p) {
  float *y = net->sequence->x;
  const size_t total = steps_of(net) * n;
  for (uint32_t t = p.step; t < p.step + p.over.steps; t++, y += p.over.batch * n) {
    if (!x) load_step(net, y, n, t, p.from, p.over.batch);
    for (uint64_t b = 0; x && b < p.over.batch; b++) memcpy(y + b * n, x + (p.from + b) * total + t * n, n * sizeof *y);
  }
}

/* Values that sequences hand on (B,T,U), or those of the last step (B,U), from sample 0 of the batch on. */
static void store_steps(const el_net *net, float *out, const el_record *r, const float *y, place p) {
  const size_t u = r->active, all = steps_of(net), m = p.over.batch;
  if (!r->size || (is_recurrent(r->op) && !(r->flags & EL_FLAG_SEQUENCES))) {
    if (p.step + p.over.steps == all) memcpy(out + p.from * u, y + (p.over.steps - 1) * m * u, m * u * sizeof *y);
    return;
  }
  for (size_t t = 0; t < p.over.steps; t++) {
    for (size_t b = 0; b < m; b++, y += u) memcpy(out + ((p.from + b) * all + p.step + t) * u, y, u * sizeof *y);
  }
}

/* Whether a sequence is longer than the steps at hand, or goes on in another piece. */
static int is_carried(const el_net *net) { return net->feed.goes_on || steps_of(net) > net->sequence->window; }

/* States, and in learning traces, of samples that nothing came before. */
static void forget(const el_net *net, uint32_t first, uint32_t last, uint32_t batch, int learning) {
  for (uint32_t i = first; i <= last; i++) {
    const el_record *r = net->records + i;
    if (!is_recurrent(r->op)) continue;
    const cell *own = cell_of(net, i);
    memset(own->h, 0, (size_t)batch * r->active * sizeof *own->h);
    if (own->c) memset(own->c, 0, (size_t)batch * r->active * sizeof *own->c);
    if (learning && own->trace && is_carried(net)) memset(own->trace, 0, trace_floats(r, batch) * sizeof *own->trace);
  }
}

static void advance(const el_net *net, uint32_t first, uint32_t last, stretch over) {
  for (uint32_t i = first; i <= last; i++) {
    if (is_recurrent(net->records[i].op)) cell_advance(net->nodes + i, cell_of(net, i), over);
  }
}

/* Every element's place in the batch of sequences is that of its mask, however many steps are at hand. */
static void dropout_steps(const el_net *net, const group *g, uint32_t i, float *y, place p) {
  const el_record *r = net->records + i;
  const size_t u = r->active, all = r->size ? steps_of(net) : 1;
  for (size_t t = p.step; t < p.step + p.over.steps; t++) {
    for (size_t b = p.from; b < p.from + p.over.batch; b++, y += u) {
      dropout_apply(net, y, r, g, (b * all + (r->size ? t : 0)) * u, u);
    }
  }
}

/* Records first .. last on x (R,D); group NULL: as in use. Returns the output of the last. */
static float *forward(const el_net *net, const group *g, uint32_t first, uint32_t last, float *x, place p) {
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
      if (g) dropout_steps(net, g, i, at->y, p);
    }
    x = at->y;
  }
  return x;
}

void sequence_infer(const el_net *net, float *out, uint32_t first, uint32_t last, const float *x, uint32_t batch) {
  place p = {.over = {1, batch, 0, net->sequence->begins}};
  if (!net->feed.goes_on) forget(net, first, last, batch, 0);
  for (; p.step < steps_of(net); p.over.first = ++p.step) {
    load_steps(net, x, net->records[first].fan_in_active, p);
    const float *y = forward(net, NULL, first, last, net->sequence->x, p);
    store_steps(net, out, net->records + last, y, p);
    advance(net, first, last, p.over);
  }
}

/* Weight of step t in the objective of a sequence that begins with step `begins`. What has a true loss has it of the
 * last step. */
static float weight_of(const el_net *net, int is_output, uint32_t t, uint32_t begins) {
  const double n = steps_of(net) - begins, own = (double)t - begins + 1;
  if (own <= 0) return 0;
  if (is_output || net->config.rule.timing == EL_LAST) return t + 1 == steps_of(net);
  if (net->config.rule.timing == EL_RAMP) return (float)(2 * own / (n * (n + 1)));
  if (net->config.rule.timing == EL_LATE) return (float)(6 * own * own / (n * (n + 1) * (2 * n + 1)));
  return (float)(1 / n);
}

/* The weight of a step for all samples, or, where they begin at different steps, 1, and weights of their own; 0 if none
 * has any. */
static float weigh_step(const el_net *net, int is_output, uint32_t t, stretch over, step *s) {
  float any = 0;
  if (!over.begins) return weight_of(net, is_output, t, 0);
  for (uint32_t b = 0; b < over.batch; b++) {
    const float own = net->sequence->weights[b] = weight_of(net, is_output, t, over.begins[b]);
    any = own != 0 ? 1 : any;
  }
  s->weights = net->sequence->weights;
  return any;
}

/* sequence->d (R,U) = the error of every step's output; 0 if no step has one. */
static int objectives(const el_net *net, const group *g, int is_output, const step *s, update by, place p,
                      double *loss) {
  const size_t one = p.over.batch * g->out;
  group view = *g;
  view.y = net->nodes[g->last].y;
  view.error = net->sequence->d;
  int any = 0;
  for (uint32_t t = 0; t < p.over.steps; t++, view.y += one, view.error += one) {
    step now = *s;
    const float weight = weigh_step(net, is_output, p.step + t, p.over, &now);
    double own = 0;
    any |= weight != 0;
    if (weight == 0) {
      memset(view.error, 0, one * sizeof *view.error);
      continue;
    }
    objective(net, &view, is_output, &now, &own);
    net->k->scale(view.error, weight, one);
    *loss += (double)weight * own;
    update share = by;
    share.share *= weight;
    if (!is_output) readout_learn(net, &view, s->batch, share);
  }
  return any;
}

/* Backward through records first .. last from the errors d (R,U) of the last one's output; x (R,D) is what the first
 * one reads. */
static void backward(const el_net *net, const group *g, uint32_t first, uint32_t last, const float *x, place p,
                     update by) {
  float *d = net->sequence->d, *other = net->sequence->other;
  for (uint32_t i = last + 1; i-- > first;) {
    const node *at = net->nodes + i;
    const uint32_t op = at->record->op;
    const float *in = i > first ? net->nodes[i - 1].y : x;
    if (!is_recurrent(op)) {
      if (op == EL_DROPOUT) {
        dropout_steps(net, g, i, d, p);
        continue;
      }
      layer_back(net, g, at, in, d, (uint32_t)rows_of(p));
      if (at->record->params) learn_record(net, at, in, d, (uint32_t)rows_of(p), by);
      continue;
    }
    if (net->config.rule.traces) {
      trace_back(net, at, cell_of(net, i), in, d, p.over, by, is_carried(net));
      return;
    }
    cell_back(net, at, cell_of(net, i), in, d, i > first ? other : NULL, p.over, by);
    float *swap = d;
    d = other;
    other = swap;
  }
}

/* What waits for the last step: forward, objective, and the errors of the steps' outputs. */
static el_status learn_tail(const el_net *net, const group *g, int is_output, const step *s, update by, place p,
                            double *loss) {
  const size_t one = (size_t)s->batch * net->records[g->tail - 1].active, rest = (p.over.steps - 1) * one;
  const float *x = net->nodes[g->tail - 1].y + rest;
  float *h = g->h + g->from * g->out, *before = NULL;
  group_forward(net, g, g->tail, x, s->batch);
  if (h != g->y) memcpy(h, g->y, s->batch * g->out * sizeof *h);
  if (!g->learns) return move_statistics(net, g);
  objective(net, g, is_output, s, loss);
  if (!isfinite(*loss)) return EL_ENONFINITE;
  const el_status status = group_back(net, g, g->tail, x, s->batch, by, &before);
  if (status) return status;
  if (!is_output) readout_learn(net, g, s->batch, by);
  memset(net->sequence->d, 0, rest * sizeof *before);
  memcpy(net->sequence->d + rest, before, one * sizeof *before);
  return EL_OK;
}

/* Forward through one group, and backward where it learns. x becomes what it hands on. */
static el_status learn_stretch(const el_net *net, const group *g, const step *s, place p, update by, float **x,
                               double *loss) {
  const section at = net->sequence->at;
  const int is_output = g->end + 1 == net->n_nodes, ends = p.step + p.over.steps == steps_of(net);
  const uint32_t first = first_of(net, g), end = g->end < at.last ? g->end : at.last;
  const float *in = *x;
  int any = net->config.rule.traces != 0;
  *x = forward(net, g, first, end, *x, p);
  if (!g->tail && g->learns) {
    any |= objectives(net, g, is_output, s, by, p, loss);
  } else if (g->tail && ends) {
    const el_status status = learn_tail(net, g, is_output, s, by, p, loss);
    if (status) return status;
    any = 1;
  } else if (g->learns) {
    memset(net->sequence->d, 0, rows_of(p) * net->records[end].active * sizeof *in);
  }
  if (!isfinite(*loss)) return EL_ENONFINITE;
  if (g->learns && any) backward(net, g, first, g->tail ? end : g->last, in, p, by);
  return EL_OK;
}

/* Groups of a step, and what each of them found. */
typedef struct course {
  const step *whole;
  uint32_t entry, first, last;
  double loss; /* of the last group that learns */
} course;

/* One stretch through all groups. */
static el_status course_stretch(el_net *net, course *c, const step *s, place p) {
  const sequence *q = net->sequence;
  const group *entered = net->groups + c->entry;
  const uint32_t from = first_of(net, entered);
  el_status status = EL_OK;
  load_steps(net, net->feed.samples ? NULL : entered->x, net->records[from].fan_in_active, p);
  float *x = q->x;
  for (uint32_t i = c->entry; i <= c->last && !status; i++) {
    group *g = net->groups + i;
    const uint32_t end = g->end < q->at.last ? g->end : q->at.last;
    if (i < c->first) {
      x = forward(net, NULL, first_of(net, g), end, x, p);
      continue;
    }
    double loss = 0;
    g->from = p.from;
    status = learn_stretch(net, g, s, p, update_of(net, g, c->whole->batch, s->lr), &x, &loss);
    if (i == c->last) c->loss += loss;
    if (i == q->last && !g->tail) store_steps(net, g->h, net->records + end, x, p);
  }
  const uint32_t end = net->groups[c->last].end;
  if (!status) advance(net, from, end < q->at.last ? end : q->at.last, p.over);
  return status;
}

/* All steps of a slice; the first stretch is the shorter one, so that the last step has a whole window behind it. */
static el_status course_slice(el_net *net, course *c, uint64_t from) {
  const sequence *q = net->sequence;
  const step part = slice_of(net, c->whole, from);
  const uint32_t all = steps_of(net), over = all % q->window;
  const uint32_t *begins = q->begins ? q->begins + from : NULL;
  place p = {.from = from, .over = {over ? over : q->window, part.batch, 0, begins}};
  el_status status = EL_OK;
  if (!net->feed.goes_on) forget(net, first_of(net, net->groups + c->entry), q->at.last, part.batch, 1);
  for (; p.step < all && !status; p.step += p.over.steps, p.over.steps = q->window) {
    p.over.first = p.step;
    status = course_stretch(net, c, &part, p);
  }
  return status;
}

/* The groups' updates, once all of them have seen all steps. */
static el_status course_apply(el_net *net, const course *c) {
  for (uint32_t i = c->first; i <= c->last; i++) {
    group *g = net->groups + i;
    const el_status status = g->learns ? group_apply(net, g, update_of(net, g, c->whole->batch, c->whole->lr)) : EL_OK;
    if (status) return status;
    if (g->tail && g->dropout && g->end + 1 != net->n_nodes) {
      dropout_apply(net, g->h, g->dropout, g, 0, c->whole->batch * g->out);
    }
    ++*g->updates;
  }
  return EL_OK;
}

el_status sequence_step(el_net *net, const step *s, uint32_t entry, uint32_t first, uint32_t last) {
  course c = {s, entry, first, last, 0};
  const uint64_t correct = s->stats->correct;
  el_status status = EL_OK;
  for (uint32_t i = first; i <= last; i++) group_begin(net, net->groups + i);
  for (uint64_t from = 0; from < s->batch && !status; from += micro_of(&net->config)) {
    status = course_slice(net, &c, from);
  }
  if (!status) status = course_apply(net, &c);
  if (status) {
    s->stats->correct = correct;
  } else if (net->groups[last].learns) {
    s->stats->loss = c.loss;
  }
  return status;
}
