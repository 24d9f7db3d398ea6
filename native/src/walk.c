/* SPDX-License-Identifier: Apache-2.0
 *
 *   handle   | net, records, nodes, groups, threads
 *   region   | a group's input at one end, its output at the other, what lies between in the middle;
 *            | the next group finds its input where this one left its output
 *   sequence | states of recurrent records, and a window of their steps
 *   state    | update counts, read-outs, moments: what a checkpoint keeps
 *   scratch  | errors, codes, logits, columns, gradient tiles, packing panels
 */
#include "walk.h"

#include <string.h>

#include "kept.h"
#include "nest.h"
#include "pooling.h"
#include "residual.h"
#include "room.h"
#include "sequence.h"

typedef struct region {
  float *base; /* NULL: measure */
  size_t total, used;
} region;

/* Its derivative is read off its own output. */
static int keeps_output(uint32_t op) { return (op >= EL_RELU && op <= EL_SIGMOID) || op == EL_MAXPOOL; }

static int is_tail(uint32_t op) { return op == EL_DROPOUT || op == EL_SOFTMAX; }

/* An operation may work in place unless it needs its input later, or an addition does, or its producer its output. */
static int is_fresh(const el_record *records, uint32_t i, uint32_t end) {
  const el_record *r = records + i;
  if (moves_error(r->op) || r->op == EL_GELU || addition_of(records, end, i)) return 1;
  return r->op != EL_RESCALE && r->input[0] >= 0 && keeps_output(r[-1].op);
}

static int is_stepwise(uint32_t op) {
  return (op >= EL_RELU && op <= EL_DROPOUT) || op == EL_LAYERNORM || op == EL_GELU;
}

section section_of(const el_record *records, uint32_t n) {
  section s = {0};
  for (uint32_t i = 0; i < n; i++) {
    if (!s.any && is_recurrent(records[i].op)) s = (section){1, i, i};
    const int stays = s.any && is_stepwise(records[i].op) && records[i].block == records[s.last].block;
    if (s.any && i == s.last + 1 && (stays || is_recurrent(records[i].op))) s.last = i;
  }
  return s;
}

uint32_t groups_of(const el_record *records, uint32_t n, const el_config *config) {
  const uint32_t size = config->rule.group ? config->rule.group : 1;
  return records[n - 1].block / size + 1;
}

static int is_trained(const el_config *c, uint32_t index) {
  return c->train && index >= c->first_group && (!c->n_groups || index - c->first_group < c->n_groups);
}

/* What a group's objective sees of its output: of a sequence, a step at a time. */
static void describe_view(group *g, const el_record *last, const el_config *c, int is_output) {
  const int steps = g->stepped && !g->tail;
  g->map = steps ? (sides){1, 1} : sides_out(last);
  g->cells = is_output ? g->map : grid_over(g->map, c->rule.grid);
  g->seen = positions(g->cells) * last->active;
  g->coded = g->by_channel ? positions(g->cells) * last->units : g->seen;
  const int is_frozen = c->rule.frozen && !steps && last->size && last->op != EL_GLOBAL_AVGPOOL;
  g->learns = g->trained && (is_output || (c->rule.objective != EL_UNTRAINED && !is_frozen));
}

size_t out_of(const group *g, const el_record *last) {
  return g->stepped && !g->tail ? last->active : features_out(last);
}

group group_at(const el_record *records, uint32_t n, const el_config *c, uint32_t index) {
  const uint32_t size = c->rule.group ? c->rule.group : 1;
  group g = {.first = n, .trained = is_trained(c, index)};
  for (uint32_t i = 0; i < n; i++) {
    if (records[i].block / size != index) continue;
    g.first = i < g.first ? i : g.first;
    g.last = i;
  }
  g.end = g.last;
  for (; is_tail(records[g.last].op); g.last--) {
    if (records[g.last].op == EL_DROPOUT) g.dropout = records + g.last;
  }
  const section s = section_of(records, n);
  g.stepped = s.any && g.end >= s.first && g.first <= s.last;
  g.tail = g.stepped && g.last > s.last ? s.last + 1 : 0;
  g.in = features_in(records + g.first);
  g.out = out_of(&g, records + g.last);
  g.block = records[g.last].block;
  for (uint32_t i = g.first; i <= g.last; i++) g.by_channel |= (records[i].flags & EL_FLAG_NESTED) != 0;
  describe_view(&g, records + g.last, c, g.end + 1 == n);
  return g;
}

static float *between(region *r, size_t floats) {
  float *at = r->base ? r->base + r->used : NULL;
  r->used += lined(floats);
  return at;
}

/* Rows of a normalisation's statistics. */
static size_t statistics_floats(const el_record *p, size_t batch) {
  if (p->op == EL_LAYERNORM) return batch * positions(sides_in(p));
  return p->op == EL_BATCHNORM ? (size_t)3 * p->active : 0;
}

/* What lies between a group's input and output, `micro` samples at a time; nodes is NULL when measuring. */
static void place_nodes(const el_record *records, node *nodes, group *g, size_t batch, size_t micro, region *r) {
  const uint32_t first = g->tail ? g->tail : g->first, end = g->last + 1;
  uint32_t outermost = first;
  for (uint32_t i = first; i < end; i++) outermost = is_fresh(records, i, end) ? i : outermost;
  float *y = g->x;
  for (uint32_t i = first; i < end; i++) {
    const el_record *p = records + i;
    const size_t floats = micro * features_out(p);
    if (is_fresh(records, i, end)) y = i == outermost && micro == batch ? g->h : between(r, floats);
    const size_t statistics = statistics_floats(p, micro);
    float *saved = statistics || passes_error(records, g->first, i) ? between(r, floats) : NULL;
    float *rows = statistics ? between(r, statistics) : NULL;
    if (nodes) nodes[i] = (node){.record = nodes[i].record, .y = y, .saved = saved, .statistics = rows};
  }
  g->y = y;
}

/* Values of a sample in front of and behind a group that lie in the region. Sequences of the net's own input are read
 * where the caller has them, those between groups exist a window at a time. */
static size_t placed_in(const group *g, section s) {
  return g->stepped && (g->first > s.first || g->first == 0) ? 0 : g->in;
}

static size_t placed_out(const el_record *records, const group *g, section s) {
  return g->stepped && g->end < s.last ? 0 : features_out(records + g->last);
}

static void place_group(const el_record *records, node *nodes, group *g, const el_config *c, section s, int flip,
                        region *r) {
  const size_t in = lined(c->batch * placed_in(g, s)), out = lined(c->batch * placed_out(records, g, s));
  if (r->base) {
    g->x = flip ? r->base + r->total - in : r->base;
    g->h = flip ? r->base : r->base + r->total - out;
  }
  r->used = flip ? out : in;
  if (g->trained && (!g->stepped || g->tail)) place_nodes(records, nodes, g, c->batch, micro_of(c), r);
  r->used += flip ? in : out;
}

/* Groups that run step by step lie between the same two ends. */
static uint32_t turns(const group *g, section s) { return !g->stepped || g->end >= s.last; }

/* Inference goes back and forth between the two ends of the region; what an addition needs again lies between. */
static size_t forward_floats(const el_record *records, uint32_t n, size_t batch) {
  const section s = section_of(records, n);
  const int begins = s.any && (s.first == 0 || records[s.first - 1].op == EL_RESCALE);
  size_t most = begins ? 0 : lined(batch * features_in(records));
  for (uint32_t i = 0; i < n; i++) {
    if (s.any && i >= s.first && i <= s.last) {
      const size_t in = i == s.first && !begins ? lined(batch * features_in(records + i)) : 0;
      const size_t both = in + (i == s.last ? lined(batch * features_out(records + i)) : 0);
      most = both > most ? both : most;
      continue;
    }
    const size_t both = lined(batch * features_in(records + i)) + lined(batch * features_out(records + i));
    if (moves_error(records[i].op) && both > most) most = both;
  }
  size_t widest;
  const size_t held = held_floats(records, n, batch, &widest);
  return held && 2 * widest + held > most ? 2 * widest + held : most;
}

static void place_region(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net) {
  const uint32_t count = groups_of(records, n, c);
  const section s = section_of(records, n);
  region r = {.total = forward_floats(records, n, c->batch)};
  for (uint32_t i = 0, flip = 0; i < count && c->train; i++) {
    group g = group_at(records, n, c, i);
    place_group(records, NULL, &g, c, s, (int)flip, &r);
    r.total = r.used > r.total ? r.used : r.total;
    flip ^= turns(&g, s);
  }
  r.base = arena_take(a, r.total, sizeof(float));
  if (!net || !r.base) return;
  net->region = r.base;
  net->region_floats = r.total;
  size_t widest;
  net->held = held_floats(records, n, c->batch, &widest) ? r.base + widest : NULL;
  for (uint32_t i = 0; i < n; i++) net->nodes[i] = (node){.record = records + i};
  for (uint32_t i = 0, flip = 0; i < count; i++) {
    net->groups[i] = group_at(records, n, c, i);
    if (c->train) place_group(records, net->nodes, net->groups + i, c, s, (int)flip, &r);
    flip ^= turns(net->groups + i, s);
  }
}

static el_net *place_handle(const el_record *records, uint32_t n, const el_config *c, arena *a, void **pool_memory) {
  el_net *net = arena_take(a, 1, sizeof *net);
  el_record *copy = arena_take(a, n, sizeof *copy);
  node *nodes = arena_take(a, n, sizeof *nodes);
  group *groups = arena_take(a, groups_of(records, n, c), sizeof *groups);
  *pool_memory = arena_take(a, c->threads > 1, pool_size());
  const size_t classes = c->weights ? c->rule.targets : 0;
  float *rates = arena_take(a, c->n_rates, sizeof *rates), *weights = arena_take(a, classes, sizeof *weights);
  const el_nest nest = place_nest(n, c, a);
  uint32_t *levels = arena_take(a, nest.n_levels ? records[n - 1].block + 1 : 0, sizeof *levels);
  if (!a->base || a->failed) return NULL;
  memcpy(copy, records, n * sizeof *copy);
  *net = (el_net){.config = *c, .records = copy, .nodes = nodes, .groups = groups, .n_nodes = n};
  if (c->n_rates) net->rates = memcpy(rates, c->rates, c->n_rates * sizeof *rates);
  if (nest.n_levels) net->nest = nest, net->levels = levels;
  if (classes) net->weights = memcpy(weights, c->weights, classes * sizeof *weights);
  net->n_groups = groups_of(records, n, c);
  return net;
}

el_net *walk(const el_record *records, uint32_t n, const el_config *c, arena *a, el_sizes *sizes, void **pool_memory) {
  el_net *net = place_handle(records, n, c, a, pool_memory);
  if (net) records = net->records; /* the caller's table may go */
  sizes->handle = a->used;
  place_region(records, n, c, a, net);
  if (section_of(records, n).any) place_sequence(records, n, c, a, net);
  sizes->activations = a->used - sizes->handle;
  for (uint32_t i = 0; net && i < n; i++) segments_of(records + i, net->nodes[i].widest);
  if (c->train) place_state(records, n, c, a, net);
  if (c->train && c->keep) place_kept(records, n, a, net);
  sizes->state = a->used - sizes->handle - sizes->activations;
  place_scratch(records, n, c, a, net);
  sizes->arena = a->used;
  sizes->scratch = a->used - sizes->handle - sizes->activations - sizes->state;
  return a->failed ? NULL : net;
}
