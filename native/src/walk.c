/* SPDX-License-Identifier: Apache-2.0
 *
 *   handle   | net, records, nodes, groups, threads
 *   region   | a group's input at one end, its output at the other, what lies between in the middle;
 *            | the next group finds its input where this one left its output
 *   state    | update counts, read-outs, moments: what a checkpoint keeps
 *   scratch  | errors, codes, logits, columns, gradient tiles, packing panels
 */
#include "walk.h"

#include <string.h>

#include "conv.h"
#include "pooling.h"

enum { TILE = 8192, LINE = 16 }; /* floats: a gradient tile of half a first-level cache; a cache line */

typedef struct region {
  float *base; /* NULL: measure */
  size_t total, used;
} region;

static size_t lined(size_t floats) { return (floats + LINE - 1) / LINE * LINE; }

/* Its derivative is read off its own output. */
static int keeps_output(uint32_t op) { return (op >= EL_RELU && op <= EL_SIGMOID) || op == EL_MAXPOOL; }

static int is_tail(uint32_t op) { return op == EL_DROPOUT || op == EL_SOFTMAX; }

/* An operation may work in place unless it needs its input later, or its producer its output. */
static int is_fresh(const el_record *r) {
  if (moves_error(r->op) || r->op == EL_GELU) return 1;
  return r->op != EL_RESCALE && r->input[0] >= 0 && keeps_output(r[-1].op);
}

uint32_t groups_of(const el_record *records, uint32_t n, const el_config *config) {
  const uint32_t size = config->rule.group ? config->rule.group : 1;
  return records[n - 1].block / size + 1;
}

static int is_trained(const el_config *c, uint32_t index) {
  return c->train && index >= c->first_group && (!c->n_groups || index - c->first_group < c->n_groups);
}

/* What a group's objective sees of its output. */
static void describe_view(group *g, const el_record *last, const el_config *c, int is_output) {
  g->map = sides_out(last);
  g->cells = is_output ? g->map : grid_over(g->map, c->rule.grid);
  g->seen = positions(g->cells) * last->active;
  const int is_frozen = c->rule.frozen && positions(g->map) > 1;
  g->learns = g->trained && (is_output || (c->rule.objective != EL_UNTRAINED && !is_frozen));
}

static group describe(const el_record *records, uint32_t n, const el_config *c, uint32_t index) {
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
  g.in = features_in(records + g.first);
  g.out = features_out(records + g.last);
  g.block = records[g.last].block;
  describe_view(&g, records + g.last, c, g.end + 1 == n);
  return g;
}

static float *between(region *r, size_t floats) {
  float *at = r->base ? r->base + r->used : NULL;
  r->used += lined(floats);
  return at;
}

static size_t statistics_floats(const el_record *p, size_t batch) {
  if (p->op == EL_LAYERNORM) return batch * positions(sides_in(p));
  return p->op == EL_BATCHNORM ? (size_t)3 * p->active : 0;
}

/* What lies between a group's input and output, `micro` samples at a time; nodes is NULL when measuring. */
static void place_nodes(const el_record *records, node *nodes, group *g, size_t batch, size_t micro, region *r) {
  uint32_t outermost = g->first;
  for (uint32_t i = g->first; i <= g->last; i++) outermost = is_fresh(records + i) ? i : outermost;
  float *y = g->x;
  for (uint32_t i = g->first; i <= g->last; i++) {
    const el_record *p = records + i;
    const size_t floats = micro * features_out(p);
    if (is_fresh(p)) y = i == outermost && micro == batch ? g->h : between(r, floats);
    const size_t statistics = statistics_floats(p, micro);
    float *saved = statistics ? between(r, floats) : NULL;
    float *rows = statistics ? between(r, statistics) : NULL;
    if (nodes) nodes[i] = (node){.record = nodes[i].record, .y = y, .saved = saved, .statistics = rows};
  }
  g->y = y;
}

static void place_group(const el_record *records, node *nodes, group *g, const el_config *c, int flip, region *r) {
  const size_t in = lined(c->batch * g->in), out = lined(c->batch * g->out);
  if (r->base) {
    g->x = flip ? r->base + r->total - in : r->base;
    g->h = flip ? r->base : r->base + r->total - out;
  }
  r->used = flip ? out : in;
  if (g->trained) place_nodes(records, nodes, g, c->batch, micro_of(c), r);
  r->used += flip ? in : out;
}

/* Inference goes back and forth between the two ends of the region. */
static size_t forward_floats(const el_record *records, uint32_t n, size_t batch) {
  size_t most = lined(batch * features_in(records));
  for (uint32_t i = 0; i < n; i++) {
    const size_t both = lined(batch * features_in(records + i)) + lined(batch * features_out(records + i));
    if (moves_error(records[i].op) && both > most) most = both;
  }
  return most;
}

static void place_region(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net) {
  const uint32_t count = groups_of(records, n, c);
  region r = {.total = forward_floats(records, n, c->batch)};
  for (uint32_t i = 0; i < count && c->train; i++) {
    group g = describe(records, n, c, i);
    place_group(records, NULL, &g, c, i & 1, &r);
    r.total = r.used > r.total ? r.used : r.total;
  }
  r.base = arena_take(a, r.total, sizeof(float));
  if (!net || !r.base) return;
  net->region = r.base;
  net->region_floats = r.total;
  for (uint32_t i = 0; i < n; i++) net->nodes[i] = (node){.record = records + i};
  for (uint32_t i = 0; i < count; i++) {
    net->groups[i] = describe(records, n, c, i);
    if (c->train) place_group(records, net->nodes, net->groups + i, c, i & 1, &r);
  }
}

static void place_moments(arena *a, uint32_t kind, size_t floats, float **moments) {
  for (uint32_t m = 0; m < kind; m++) {
    float *at = arena_take(a, floats, sizeof(float));
    if (moments) moments[m] = at;
  }
}

/* Floats of a record that an optimizer moves, as stored. */
static size_t trained_floats(const el_record *r) {
  if (r->op == EL_RESCALE) return 0;
  return r->op == EL_BATCHNORM ? 2 * (size_t)r->units : r->params;
}

/* The same in use, without gaps: a gradient. */
static size_t gradient_floats(const el_record *r) {
  if (r->op == EL_BATCHNORM || r->op == EL_LAYERNORM) return 2 * (size_t)r->active;
  if (r->op != EL_DENSE && r->op != EL_CONV) return 0;
  return (weight_rows(r) + (r->flags & EL_FLAG_BIAS ? 1 : 0)) * r->active;
}

static int has_readout(const el_config *c, const group *g, int is_output) {
  return g->learns && !is_output && (c->rule.objective == EL_READOUT || c->rule.objective == EL_SIMILARITY);
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

static void place_state(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net) {
  const uint32_t count = groups_of(records, n, c);
  const size_t before = a->used;
  uint32_t *updates = arena_take(a, count, sizeof *updates);
  for (uint32_t i = 0; i < count; i++) {
    const group g = describe(records, n, c, i);
    group *into = net && net->groups ? net->groups + i : NULL;
    if (into && updates) into->updates = updates + i;
    if (g.learns) place_group_state(records, c, &g, i + 1 == count, a, net, into);
  }
  if (!net || !updates || a->failed) return;
  net->state = updates;
  net->state_bytes = a->used - before;
  memset(net->state, 0, net->state_bytes);
}

static void place_kept(const el_record *records, uint32_t n, arena *a, el_net *net) {
  size_t floats = 0;
  for (uint32_t i = 0; i < n; i++) {
    const size_t end = (size_t)records[i].offset + records[i].params;
    floats = end > floats ? end : floats;
  }
  float *kept = arena_take(a, floats, sizeof *kept);
  if (!net) return;
  net->kept = kept;
  net->n_params = floats;
}

/* What the scratch must hold, taken over all groups that learn. */
typedef struct extent {
  size_t width;     /* features of a position */
  size_t seen;      /* features that a hidden objective sees */
  size_t viewed;    /* the same, where they are means of a map */
  size_t errors[2]; /* of a micro-batch, where errors lie in turn */
  size_t tile;      /* dense gradient, a tile at a time */
  size_t patch, convolution, sums, readout;
} extent;

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static void extend_by_errors(extent *e, const el_record *records, const group *g) {
  int turn = 0;
  e->errors[0] = larger(e->errors[0], larger(g->out, g->seen));
  for (uint32_t i = g->last; i > g->first && records[i - 1].op != EL_RESCALE; i--) {
    if (!moves_error(records[i].op)) continue;
    turn = !turn;
    e->errors[turn] = larger(e->errors[turn], features_in(records + i));
  }
}

static void extend_by_record(extent *e, const el_record *r) {
  if (r->op == EL_CONV) e->convolution = larger(e->convolution, weight_rows(r) * r->active);
  if (r->op != EL_DENSE) return;
  const size_t rows = r->active < TILE ? TILE / r->active : 1;
  e->tile = larger(e->tile, (r->fan_in_active < rows ? r->fan_in_active : rows) * r->active);
}

static void extend_by_group(extent *e, const el_record *records, const el_config *c, const group *g, int is_output) {
  size_t sums = 0;
  for (uint32_t i = g->first; i <= g->last; i++) {
    extend_by_record(e, records + i);
    sums += gradient_floats(records + i);
  }
  extend_by_errors(e, records, g);
  if (!is_output) e->seen = larger(e->seen, g->seen);
  if (!is_output && g->seen != g->out) e->viewed = larger(e->viewed, g->seen);
  const size_t readout = has_readout(c, g, is_output) ? g->seen * c->rule.targets : 0;
  e->readout = larger(e->readout, readout);
  e->sums = larger(e->sums, sums + readout);
}

static extent measure_extent(const el_record *records, uint32_t n, const el_config *c) {
  extent e = {0};
  const uint32_t count = groups_of(records, n, c);
  for (uint32_t i = 0; i < n; i++) {
    const el_record *r = records + i;
    if (r->op != EL_RESCALE) e.width = larger(e.width, r->active);
    if (r->op == EL_CONV) e.patch = larger(e.patch, conv_patch_floats(r));
  }
  for (uint32_t i = 0; i < count; i++) {
    const group g = describe(records, n, c, i);
    if (g.learns) extend_by_group(&e, records, c, &g, i + 1 == count);
  }
  return e;
}

/* Gradients of one group at a time share one place. */
static void place_sums(const el_record *records, const el_config *c, const extent *e, arena *a, el_net *net) {
  float *sums = arena_take(a, e->sums, sizeof *sums);
  for (uint32_t i = 0; net && i < net->n_groups; i++) {
    group *g = net->groups + i;
    if (!g->learns) continue;
    g->sum = sums;
    for (uint32_t j = g->first; j <= g->last; j++) {
      net->nodes[j].gradient = sums + g->sums;
      g->sums += gradient_floats(records + j);
    }
    if (has_readout(c, g, i + 1 == net->n_groups)) g->readout_sum = sums + g->sums;
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

static void place_scratch(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net) {
  const extent e = measure_extent(records, n, c);
  const el_rule *rule = &c->rule;
  const size_t floats = sizeof(float), micro = c->train ? micro_of(c) : 0, targets = rule->targets;
  const int projects = rule->objective >= EL_TP_L2 && rule->objective <= EL_TP_CE, fused = !collects(c);
  const int tiled = c->train && fused && c->optimizer.kind != EL_SGD;
  scratch s = {.tile = tiled ? lined(larger(e.tile, e.readout)) : 0, .patch = lined(e.patch)};
  s.width = lined(e.width);
  s.d = arena_take(a, micro * e.errors[0], floats);
  s.d2 = arena_take(a, micro * e.errors[1], floats);
  s.q = arena_take(a, micro * e.viewed, floats);
  s.dq = arena_take(a, micro * e.viewed, floats);
  s.codes = arena_take(a, projects ? e.seen * targets : 0, floats);
  s.logits = arena_take(a, e.seen && !(projects && rule->objective != EL_TP_CE) ? micro * targets : 0, floats);
  s.columns = arena_take(a, 4 * e.width, floats);
  s.left = arena_take(a, c->train ? s.width * c->threads : 0, floats);
  s.tiles = arena_take(a, s.tile * c->threads, floats);
  s.packs = arena_take(a, (size_t)GEMM_PACK * c->threads, floats);
  s.patches = arena_take(a, s.patch * c->threads, floats);
  s.gradient = arena_take(a, c->train && fused ? e.convolution : 0, floats);
  if (c->train && !fused) place_sums(records, c, &e, a, net);
  place_order(c, a, &s.order);
  if (net) net->scratch = s;
}

static el_net *place_handle(const el_record *records, uint32_t n, const el_config *c, arena *a, void **pool_memory) {
  el_net *net = arena_take(a, 1, sizeof *net);
  el_record *copy = arena_take(a, n, sizeof *copy);
  node *nodes = arena_take(a, n, sizeof *nodes);
  group *groups = arena_take(a, groups_of(records, n, c), sizeof *groups);
  *pool_memory = arena_take(a, c->threads > 1, pool_size());
  const size_t classes = c->weights ? c->rule.targets : 0;
  float *rates = arena_take(a, c->n_rates, sizeof *rates), *weights = arena_take(a, classes, sizeof *weights);
  if (!a->base || a->failed) return NULL;
  memcpy(copy, records, n * sizeof *copy);
  *net = (el_net){.config = *c, .records = copy, .nodes = nodes, .groups = groups, .n_nodes = n};
  if (c->n_rates) net->rates = memcpy(rates, c->rates, c->n_rates * sizeof *rates);
  if (classes) net->weights = memcpy(weights, c->weights, classes * sizeof *weights);
  net->n_groups = groups_of(records, n, c);
  return net;
}

el_net *walk(const el_record *records, uint32_t n, const el_config *c, arena *a, el_sizes *sizes, void **pool_memory) {
  el_net *net = place_handle(records, n, c, a, pool_memory);
  if (net) records = net->records; /* the caller's table may go */
  sizes->handle = a->used;
  place_region(records, n, c, a, net);
  sizes->activations = a->used - sizes->handle;
  if (c->train) place_state(records, n, c, a, net);
  if (c->train && c->keep) place_kept(records, n, a, net);
  sizes->state = a->used - sizes->handle - sizes->activations;
  place_scratch(records, n, c, a, net);
  sizes->arena = a->used;
  sizes->scratch = a->used - sizes->handle - sizes->activations - sizes->state;
  return a->failed ? NULL : net;
}
