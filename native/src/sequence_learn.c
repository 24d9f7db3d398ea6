/* SPDX-License-Identifier: Apache-2.0
 * Learning in recurrent blocks: objectives at every step, backward through a stretch, a step of all groups. */
#include <math.h>
#include <string.h>

#include "layers.h"
#include "learn.h"
#include "rules.h"
#include "sequence_steps.h"
#include "traces.h"

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
        steps_dropout(net, g, i, d, p);
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
  *x = steps_forward(net, g, first, end, *x, p);
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
  steps_load(net, net->feed.samples ? NULL : entered->x, net->records[from].fan_in_active, p);
  float *x = q->x;
  for (uint32_t i = c->entry; i <= c->last && !status; i++) {
    group *g = net->groups + i;
    const uint32_t end = g->end < q->at.last ? g->end : q->at.last;
    if (i < c->first) {
      x = steps_forward(net, NULL, first_of(net, g), end, x, p);
      continue;
    }
    double loss = 0;
    g->from = p.from;
    status = learn_stretch(net, g, s, p, update_of(net, g, c->whole->batch, s->lr), &x, &loss);
    if (i == c->last) c->loss += loss;
    if (i == q->last && !g->tail) steps_store(net, g->h, net->records + end, x, p);
  }
  const uint32_t end = net->groups[c->last].end;
  if (!status) steps_advance(net, from, end < q->at.last ? end : q->at.last, p.over);
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
  if (!net->feed.goes_on) steps_forget(net, first_of(net, net->groups + c->entry), q->at.last, part.batch, 1);
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
