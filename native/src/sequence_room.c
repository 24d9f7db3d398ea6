/* SPDX-License-Identifier: Apache-2.0
 * Where recurrent records keep states, steps and traces. */
#include <string.h>

#include "sequence.h"
#include "traces.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Rows that a window of training has at most, and those of any window. */
typedef struct extents {
  size_t trained, rows, inputs, units, gates;
  size_t passes; /* 1 if an error goes from one recurrent record to another */
} extents;

static extents extents_of(const el_record *records, const sequence *q, const el_config *c) {
  extents e = {.trained = c->train ? (size_t)q->window * micro_of(c) : 0};
  const uint32_t size = c->rule.group ? c->rule.group : 1;
  const el_record *before = NULL;
  e.rows = larger(e.trained, c->batch);
  for (uint32_t i = q->at.first; i <= q->at.last; i++) {
    const el_record *r = records + i;
    e.units = larger(e.units, r->active);
    if (!is_recurrent(r->op)) continue;
    e.inputs = larger(e.inputs, r->fan_in_active);
    e.gates = larger(e.gates, (size_t)gates_of(r->op) * r->active);
    if (c->train && before && before->block / size == r->block / size) e.passes = 1;
    before = r;
  }
  return e;
}

static void place_cell(const el_record *r, const el_config *c, const extents *e, int traced, arena *a, cell *own) {
  const size_t floats = sizeof(float), u = r->active, states = (r->op == EL_LSTM) * (size_t)c->batch * u;
  cell at = *own;
  at.h = arena_take(a, c->batch * u, floats);
  at.c = arena_take(a, states, floats);
  at.gates = arena_take(a, e->rows * gates_of(r->op) * u, floats);
  at.inner = arena_take(a, (r->op != EL_SIMPLE_RNN) * e->rows * u, floats);
  at.squashed = arena_take(a, (r->op == EL_LSTM) * e->rows * u, floats);
  at.trace = arena_take(a, traced ? trace_floats(r, micro_of(c)) : 0, floats);
  if (r->op != EL_LSTM) at.c = NULL; /* a zero-sized place is still an address */
  if (!traced || r->op == EL_SIMPLE_RNN) at.trace = NULL;
  *own = at;
}

static void place_node(const el_record *r, int trained, const extents *e, arena *a, node *at) {
  const size_t normalises = trained && r->op == EL_LAYERNORM;
  float *y = arena_take(a, e->rows * r->active, sizeof(float));
  float *saved = arena_take(a, normalises * e->trained * r->active, sizeof(float));
  float *statistics = arena_take(a, normalises * e->trained, sizeof(float));
  if (at) *at = (node){.y = y, .saved = saved, .statistics = statistics};
}

void sequence_resize(const el_net *net) {
  const sequence *q = net->sequence;
  for (uint32_t i = q->at.first; i <= q->at.last; i++) {
    el_record *flat = q->records + (i - q->at.first);
    *flat = net->records[i];
    flat->size = 0;
  }
}

/* A step of a sequence is a flat vector. */
static void place_steps(const sequence *q, arena *a, el_net *net) {
  const uint32_t count = q->at.last - q->at.first + 1;
  el_record *flat = arena_take(a, count, sizeof *flat);
  if (!net || !flat) return;
  for (uint32_t i = 0; i < count; i++) net->nodes[q->at.first + i].record = flat + i;
  net->sequence->records = flat;
  sequence_resize(net);
}

static void place_shared(const el_config *c, const extents *e, arena *a, cell *shared, sequence *q) {
  const size_t micro = c->train ? micro_of(c) : 0, floats = sizeof(float);
  q->x = arena_take(a, e->rows * e->inputs, floats);
  q->d = arena_take(a, e->trained * larger(e->units, e->inputs), floats);
  q->other = arena_take(a, e->passes * e->trained * larger(e->units, e->inputs), floats);
  shared->hidden = arena_take(a, c->batch * e->gates, floats);
  for (int i = 0; i < 2; i++) shared->carry[i] = arena_take(a, micro * e->units, floats);
}

static void place_padding(const el_record *r, const el_config *c, arena *a, sequence *q) {
  const size_t samples = r->flags & EL_FLAG_PADDED ? c->batch : 0;
  q->begins = arena_take(a, samples, sizeof *q->begins);
  q->behind = arena_take(a, samples, sizeof *q->behind);
  q->begun = arena_take(a, samples, sizeof *q->begun);
  q->weights = arena_take(a, samples, sizeof *q->weights);
  if (!samples) q->begins = NULL;
}

static sequence described(const el_record *records, uint32_t n, const el_config *c) {
  sequence q = {.at = section_of(records, n)};
  const uint32_t size = c->rule.group ? c->rule.group : 1;
  q.first = records[q.at.first].block / size;
  q.last = records[q.at.last].block / size;
  q.steps = sides_in(records + q.at.first).w;
  q.window = c->rule.window ? c->rule.window : 1;
  if (c->train && c->rule.traces) q.window = TRACE_STEPS;
  return q;
}

void place_sequence(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net) {
  sequence q = described(records, n, c), *into = arena_take(a, 1, sizeof *into);
  cell shared = {0}, *cells = arena_take(a, q.at.last - q.at.first + 1, sizeof *cells);
  const int placing = net && into && cells;
  const extents e = extents_of(records, &q, c);
  q.cells = cells;
  if (placing) net->sequence = into;
  place_shared(c, &e, a, &shared, &q);
  place_padding(records + q.at.first, c, a, &q);
  for (uint32_t i = q.at.first; i <= q.at.last; i++) {
    const el_record *r = records + i;
    const group g = group_at(records, n, c, r->block / (c->rule.group ? c->rule.group : 1));
    cell own = shared;
    place_node(r, g.trained, &e, a, placing ? net->nodes + i : NULL);
    const int is_carried = c->streams || q.steps > q.window; /* traces stand for what came before a window */
    if (is_recurrent(r->op)) place_cell(r, c, &e, g.learns && c->rule.traces && is_carried, a, &own);
    if (placing) cells[i - q.at.first] = own;
  }
  if (placing) *into = q;
  place_steps(&q, a, placing ? net : NULL);
}
