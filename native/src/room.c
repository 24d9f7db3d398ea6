/* SPDX-License-Identifier: Apache-2.0
 * What learning keeps (read-outs, moments) and what it works with (errors, codes, gradients), measured over all groups
 * that learn. */
#include "room.h"

#include <string.h>

#include "attention.h"
#include "conv.h"
#include "similarity.h"

enum { TILE = 8192 }; /* floats: a gradient tile of half a first-level cache */

static void place_moments(arena *a, uint32_t kind, size_t floats, float **into) {
  for (uint32_t m = 0; m < kind; m++) {
    float *at = arena_take(a, floats, sizeof(float));
    if (into) into[m] = at;
  }
}

static int has_readout(const el_config *c, const group *g, int is_output) {
  return g->learns && !is_output && (c->rule.objective == EL_READOUT || c->rule.objective == EL_READOUT_SIM);
}

static void place_group_state(const el_record *records, const el_config *c, const group *g, int is_output, arena *a,
                              el_net *net, group *into) {
  for (uint32_t i = g->first; i <= g->last; i++) {
    const size_t floats = trained_floats(records + i);
    if (floats) place_moments(a, c->optimizer.kind, floats, net ? net->nodes[i].moments : NULL);
  }
  if (!has_readout(c, g, is_output)) return;
  const size_t floats = g->seen * c->rule.targets;
  float *readout = arena_take(a, floats, sizeof(float));
  if (into) into->readout = readout;
  place_moments(a, c->optimizer.kind, floats, into ? into->moments : NULL);
}

void place_state(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net) {
  const uint32_t count = groups_of(records, n, c);
  const size_t before = a->used;
  uint32_t *updates = arena_take(a, count, sizeof *updates);
  for (uint32_t i = 0; i < count; i++) {
    const group g = group_at(records, n, c, i);
    group *into = net && net->groups ? net->groups + i : NULL;
    if (into && updates) into->updates = updates + i;
    if (g.learns) place_group_state(records, c, &g, i + 1 == count, a, net, into);
  }
  if (!net || !net->groups || !updates || a->failed) return;
  net->state = updates;
  net->state_bytes = a->used - before;
  memset(net->state, 0, net->state_bytes);
}

/* What the scratch must hold, taken over all groups that learn. */
typedef struct extent {
  size_t width;     /* features of a position */
  size_t sheet;     /* features of a sample whose error is summed over the batch */
  size_t seen;      /* features that a hidden objective sees */
  size_t viewed;    /* the same, where they are means of a map */
  size_t errors[2]; /* of a micro-batch, where errors lie in turn */
  size_t tile;      /* dense gradient, a tile at a time */
  size_t patch, packed;
  size_t convolution;   /* a gradient that is whole, of a table too */
  size_t sums, stepped; /* gradients of one group, and of all groups that run step by step */
  size_t score;
  size_t similarity; /* features in which samples are compared */
} extent;

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Floats of one sample's errors, where they begin and, in turn, elsewhere. */
static void error_floats(const el_record *records, const group *g, size_t floats[2]) {
  int turn = 0;
  const uint32_t first = g->tail ? g->tail - 1 : g->first; /* the error in front of a tail goes on */
  floats[0] = floats[1] = 0;
  if (g->stepped && !g->tail) return;
  floats[0] = larger(g->out, g->seen);
  for (uint32_t i = g->last; i > first && records[i - 1].op != EL_RESCALE; i--) {
    if (!moves_error(records[i].op)) continue;
    turn = !turn;
    floats[turn] = larger(floats[turn], features_in(records + i));
  }
}

/* The first of the two places is the larger one, in every group. */
static void extend_by_errors(extent *e, const el_record *records, const group *g) {
  size_t floats[2];
  error_floats(records, g, floats);
  const int turned = floats[1] > floats[0];
  for (int i = 0; i < 2; i++) e->errors[i] = larger(e->errors[i], floats[i ^ turned]);
}

static void place_errors(const el_record *records, const scratch *s, el_net *net) {
  for (uint32_t i = 0; i < net->n_groups; i++) {
    size_t floats[2];
    group *g = net->groups + i;
    error_floats(records, g, floats);
    g->error = floats[1] > floats[0] ? s->d2 : s->d;
    g->other = floats[1] > floats[0] ? s->d : s->d2;
  }
}

/* Rows of a product's gradient that fit into half a first-level cache. */
static size_t tile_floats(size_t inputs, size_t units) {
  const size_t rows = units < TILE ? TILE / units : 1;
  return (inputs < rows ? inputs : rows) * units;
}

static void extend_by_record(extent *e, const el_record *r) {
  if (r->op == EL_EMBEDDING || r->op == EL_CONV) e->convolution = larger(e->convolution, weight_rows(r) * r->active);
  if (r->op == EL_DENSE) e->tile = larger(e->tile, tile_floats(r->fan_in_active, r->active));
}

static size_t extend_by_readout(extent *e, const el_config *c, const group *g) {
  const size_t targets = c->rule.targets;
  e->tile = larger(e->tile, tile_floats(g->seen, targets));
  return g->seen * targets;
}

static void extend_by_group(extent *e, const el_record *records, const el_config *c, const group *g, int is_output) {
  size_t sums = has_readout(c, g, is_output) ? extend_by_readout(e, c, g) : 0;
  for (uint32_t i = g->first; i <= g->last; i++) {
    extend_by_record(e, records + i);
    sums += trained_floats(records + i);
  }
  if (g->stepped) {
    e->stepped += sums;
  } else {
    e->sums = larger(e->sums, sums);
  }
  extend_by_errors(e, records, g);
  if (is_output) return;
  e->seen = larger(e->seen, g->seen);
  if (compares(&c->rule)) e->similarity = larger(e->similarity, g->seen);
  if (is_viewed(g)) e->viewed = larger(e->viewed, g->seen);
}

static extent measure_extent(const el_record *records, uint32_t n, const el_config *c) {
  extent e = {0};
  const uint32_t count = groups_of(records, n, c);
  for (uint32_t i = 0; i < n; i++) {
    const el_record *r = records + i;
    if (r->op != EL_RESCALE) e.width = larger(e.width, r->active);
    if (r->op == EL_POSITIONS) e.sheet = larger(e.sheet, features_out(r));
    e.score = larger(e.score, attention_floats(r, (int)c->train));
    if (r->op != EL_CONV) continue;
    e.patch = larger(e.patch, conv_patch_floats(r));
    if (is_cut(r) || c->nest.n_levels) e.packed = larger(e.packed, conv_packed_floats(r));
  }
  for (uint32_t i = 0; i < count; i++) {
    const group g = group_at(records, n, c, i);
    if (g.learns) extend_by_group(&e, records, c, &g, i + 1 == count);
  }
  return e;
}

void share_sums(el_net *net, group *g) {
  g->sums = 0;
  for (uint32_t i = g->first; i <= g->last; i++) {
    net->nodes[i].gradient = g->sum + g->sums;
    g->sums += trained_floats(net->records + i);
  }
  if (g->readout) g->readout_sum = g->sum + g->sums;
}

/* Gradients of one group at a time share one place; groups that run step by step, together, have one each. */
static void place_sums(const el_config *c, const extent *e, arena *a, el_net *net) {
  float *shared = arena_take(a, collects(c) ? e->sums : 0, sizeof *shared);
  float *stepped = arena_take(a, e->stepped, sizeof *stepped);
  for (uint32_t i = 0; net && i < net->n_groups; i++) {
    group *g = net->groups + i;
    if (!g->learns || !(g->stepped || collects(c))) continue;
    g->sum = g->stepped ? stepped : shared;
    share_sums(net, g);
    if (g->stepped) stepped += g->sums + (g->readout ? g->seen * c->rule.targets : 0);
  }
}

static void place_order(const el_config *c, arena *a, sample_order *o) {
  const size_t batch = c->train ? c->batch : 0;
  const int labelled = c->rule.loss == EL_CROSS_ENTROPY;
  o->index = arena_take(a, batch, sizeof *o->index);
  o->labels = arena_take(a, batch, sizeof *o->labels);
  o->targets = arena_take(a, labelled ? 0 : batch * c->rule.targets, sizeof *o->targets);
  if (labelled) o->targets = NULL; /* a zero-sized place is still an address */
}

void place_scratch(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net) {
  const extent e = measure_extent(records, n, c);
  const el_rule *rule = &c->rule;
  const size_t floats = sizeof(float), micro = c->train ? micro_of(c) : 0, targets = rule->targets;
  const int distant = rule->objective >= EL_TP_L2 && rule->objective < EL_TP_CE, fused = !collects(c);
  const int projects = distant || rule->objective == EL_TP_CE || rule->objective == EL_TP_CE_SIM;
  const int tiled = c->train && fused && c->optimizer.kind != EL_SGD;
  scratch s = {.tile = tiled ? lined(e.tile) : 0, .patch = lined(e.patch), .score = lined(e.score)};
  s.width = lined(e.width);
  s.d = arena_take(a, micro * e.errors[0], floats);
  s.d2 = arena_take(a, micro * e.errors[1], floats);
  s.q = arena_take(a, micro * e.viewed, floats);
  s.dq = arena_take(a, micro * e.viewed, floats);
  s.codes = arena_take(a, projects ? e.seen * targets : 0, floats);
  const size_t scored = micro * targets * (c->nest.n_levels ? c->nest.n_levels : 1);
  s.logits = arena_take(a, e.seen && !distant ? scored : 0, floats);
  s.v = arena_take(a, micro * e.similarity, floats);
  s.dv = arena_take(a, micro * e.similarity, floats);
  s.alike = arena_take(a, e.similarity ? micro * (micro + 1) : 0, floats);
  s.columns = arena_take(a, 4 * (c->train ? larger(e.width, e.sheet) : e.width), floats);
  s.left = arena_take(a, c->train ? s.width * c->threads : 0, floats);
  s.tiles = arena_take(a, s.tile * c->threads, floats);
  s.packs = arena_take(a, (size_t)GEMM_PACK * c->threads, floats);
  s.patches = arena_take(a, s.patch * c->threads, floats);
  s.weights = arena_take(a, e.packed, floats);
  s.scores = arena_take(a, s.score * c->threads, floats);
  s.gradient = arena_take(a, c->train && fused ? e.convolution : 0, floats);
  if (c->train) place_sums(c, &e, a, net);
  place_order(c, a, &s.order);
  if (!net) return;
  net->scratch = s;
  place_errors(records, &s, net);
}
