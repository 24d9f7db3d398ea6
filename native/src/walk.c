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

enum { TILE = 8192, LINE = 16 }; /* floats: a gradient tile of half a first-level cache; a cache line */

typedef struct region {
  float *base; /* NULL: measure */
  size_t total, used;
} region;

static size_t lined(size_t floats) { return (floats + LINE - 1) / LINE * LINE; }

static int keeps_output(uint32_t op) { return op >= EL_RELU && op <= EL_SIGMOID; }

static int is_tail(uint32_t op) { return op == EL_DROPOUT || op == EL_SOFTMAX; }

/* An operation may work in place unless its producer's derivative is read off that output. */
static int is_fresh(const el_record *r) {
  return r->op == EL_DENSE || (r->op != EL_RESCALE && r->input[0] >= 0 && keeps_output(r[-1].op));
}

static int is_trained(const el_config *c, uint32_t index, uint32_t count) {
  return c->rule.objective != EL_UNTRAINED || index + 1 == count;
}

uint32_t groups_of(const el_record *records, uint32_t n, const el_config *config) {
  const uint32_t size = config->rule.group ? config->rule.group : 1;
  return records[n - 1].block / size + 1;
}

static group describe(const el_record *records, uint32_t n, const el_config *c, uint32_t index) {
  const uint32_t size = c->rule.group ? c->rule.group : 1;
  group g = {.first = n};
  for (uint32_t i = 0; i < n; i++) {
    if (records[i].block / size != index) continue;
    g.first = i < g.first ? i : g.first;
    g.last = i;
  }
  for (; is_tail(records[g.last].op); g.last--) {
    if (records[g.last].op == EL_DROPOUT) g.dropout = records + g.last;
  }
  g.in = records[g.first].fan_in_active;
  g.out = records[g.last].active;
  g.block = records[g.last].block;
  return g;
}

static float *between(region *r, size_t floats) {
  float *at = r->base ? r->base + r->used : NULL;
  r->used += lined(floats);
  return at;
}

/* Buffers of one group; nodes is NULL when measuring. */
static void place_group(const el_record *records, node *nodes, group *g, size_t batch, int flip, region *r) {
  const size_t in = lined(batch * g->in), out = lined(batch * g->out);
  if (r->base) {
    g->x = flip ? r->base + r->total - in : r->base;
    g->h = flip ? r->base : r->base + r->total - out;
  }
  r->used = flip ? out : in;
  uint32_t outermost = g->first;
  for (uint32_t i = g->first; i <= g->last; i++) outermost = is_fresh(records + i) ? i : outermost;
  float *y = g->x;
  for (uint32_t i = g->first; i <= g->last; i++) {
    const el_record *p = records + i;
    if (is_fresh(p)) y = i == outermost ? g->h : between(r, batch * p->active);
    const int normalises = p->op == EL_BATCHNORM;
    float *saved = normalises ? between(r, batch * p->active) : NULL;
    float *statistics = normalises ? between(r, (size_t)3 * p->active) : NULL;
    if (nodes) nodes[i] = (node){.record = nodes[i].record, .y = y, .saved = saved, .statistics = statistics};
  }
  r->used += flip ? in : out;
}

/* Inference goes back and forth between the two ends of the region. */
static size_t forward_floats(const el_record *records, uint32_t n, size_t batch) {
  size_t most = lined(batch * records[0].fan_in_active);
  for (uint32_t i = 0; i < n; i++) {
    const size_t both = lined(batch * records[i].fan_in_active) + lined(batch * records[i].active);
    if (records[i].op == EL_DENSE && both > most) most = both;
  }
  return most;
}

static void place_region(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net) {
  const uint32_t count = groups_of(records, n, c);
  region r = {.total = forward_floats(records, n, c->batch)};
  for (uint32_t i = 0; i < count && c->train; i++) {
    group g = describe(records, n, c, i);
    place_group(records, NULL, &g, c->batch, i & 1, &r);
    r.total = r.used > r.total ? r.used : r.total;
  }
  r.base = arena_take(a, r.total, sizeof(float));
  if (!net || !r.base) return;
  net->region = r.base;
  net->region_floats = r.total;
  for (uint32_t i = 0; i < n; i++) net->nodes[i] = (node){.record = records + i};
  for (uint32_t i = 0; i < count; i++) {
    net->groups[i] = describe(records, n, c, i);
    if (c->train) place_group(records, net->nodes, net->groups + i, c->batch, i & 1, &r);
  }
}

static void place_moments(arena *a, uint32_t kind, size_t floats, float **moments) {
  for (uint32_t m = 0; m < kind; m++) {
    float *at = arena_take(a, floats, sizeof(float));
    if (moments) moments[m] = at;
  }
}

static size_t trained_floats(const el_record *r) { return r->op == EL_BATCHNORM ? 2 * (size_t)r->units : r->params; }

static void place_group_state(const el_record *records, const el_config *c, const group *g, int hidden, arena *a,
                              el_net *net, group *into) {
  for (uint32_t i = g->first; i <= g->last; i++) {
    if (records[i].op != EL_DENSE && records[i].op != EL_BATCHNORM) continue;
    place_moments(a, c->optimizer.kind, trained_floats(records + i), net ? net->nodes[i].moments : NULL);
  }
  if (!hidden || c->rule.objective != EL_READOUT) return;
  const size_t floats = (size_t)g->out * c->rule.targets;
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
    if (is_trained(c, i, count)) place_group_state(records, c, &g, i + 1 < count, a, net, into);
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

/* What the scratch must hold, taken over all groups. */
typedef struct extent {
  size_t width, hidden, tile;
  int layers;
} extent;

static extent measure_extent(const el_record *records, uint32_t n, const el_config *c) {
  extent e = {0};
  const uint32_t count = groups_of(records, n, c);
  for (uint32_t i = 0; i < count; i++) {
    const group g = describe(records, n, c, i);
    int layers = 0;
    for (uint32_t j = g.first; j <= g.last; j++) {
      const el_record *r = records + j;
      layers += r->op == EL_DENSE;
      if (r->op != EL_RESCALE && r->active > e.width) e.width = r->active;
      const size_t rows = r->active && r->active < TILE ? TILE / r->active : 1;
      const size_t used = (r->fan_in_active < rows ? r->fan_in_active : rows) * r->active;
      if (r->op == EL_DENSE && used > e.tile) e.tile = used;
    }
    e.layers = layers > e.layers ? layers : e.layers;
    if (i + 1 < count && g.out > e.hidden) e.hidden = g.out;
  }
  return e;
}

static void place_scratch(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net) {
  const extent e = measure_extent(records, n, c);
  const el_rule *rule = &c->rule;
  const int projects = rule->objective >= EL_TP_L2 && rule->objective <= EL_TP_CE;
  const int scores = rule->objective == EL_TP_CE || rule->objective == EL_READOUT;
  const size_t readout = rule->objective == EL_READOUT ? e.hidden * rule->targets : 0;
  const size_t tile = e.tile > readout ? e.tile : readout;
  const size_t floats = sizeof(float), errors = c->train ? c->batch * e.width : 0;
  scratch s = {.tile = c->train && c->optimizer.kind != EL_SGD ? lined(tile) : 0};
  s.d = arena_take(a, errors, floats);
  s.d2 = arena_take(a, e.layers > 1 ? errors : 0, floats);
  s.codes = arena_take(a, c->train && projects ? e.hidden * rule->targets : 0, floats);
  s.logits = arena_take(a, c->train && scores && e.hidden ? (size_t)c->batch * rule->targets : 0, floats);
  s.columns = arena_take(a, c->train ? 4 * e.width : 0, floats);
  s.tiles = arena_take(a, s.tile * c->threads, floats);
  s.packs = arena_take(a, (size_t)GEMM_PACK * c->threads, floats);
  const size_t batch = c->train ? c->batch : 0;
  s.order.index = arena_take(a, batch, sizeof *s.order.index);
  s.order.labels = arena_take(a, batch, sizeof *s.order.labels);
  s.order.targets = arena_take(a, rule->loss == EL_CROSS_ENTROPY ? 0 : batch * rule->targets, floats);
  if (rule->loss == EL_CROSS_ENTROPY) s.order.targets = NULL; /* a zero-sized place is still an address */
  if (net) net->scratch = s;
}

static el_net *place_handle(const el_record *records, uint32_t n, const el_config *c, arena *a, void **pool_memory) {
  el_net *net = arena_take(a, 1, sizeof *net);
  el_record *copy = arena_take(a, n, sizeof *copy);
  node *nodes = arena_take(a, n, sizeof *nodes);
  group *groups = arena_take(a, groups_of(records, n, c), sizeof *groups);
  *pool_memory = arena_take(a, c->threads > 1, pool_size());
  if (!a->base || a->failed) return NULL;
  memcpy(copy, records, n * sizeof *copy);
  *net = (el_net){.config = *c, .records = copy, .nodes = nodes, .groups = groups, .n_nodes = n};
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
