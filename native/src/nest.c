/* SPDX-License-Identifier: Apache-2.0 */
#include "nest.h"

#include <string.h>

#include "philox.h"
#include "room.h"

static uint32_t blocks_of(const el_record *records, uint32_t n) { return records[n - 1].block + 1; }

el_nest place_nest(const el_record *records, uint32_t n, const el_config *c, arena *a) {
  el_nest nest = c->nest;
  const size_t widths = (size_t)nest.n_levels * blocks_of(records, n);
  uint32_t *units = arena_take(a, nest.n_levels ? widths : 0, sizeof *units);
  float *chances = arena_take(a, nest.n_levels, sizeof *chances);
  if (!a->base || a->failed || !nest.n_levels) return nest;
  nest.units = memcpy(units, c->nest.units, widths * sizeof *units);
  nest.chances = memcpy(chances, c->nest.chances, nest.n_levels * sizeof *chances);
  return nest;
}

/* A product reads what the record before it gives, and gives what its block's level says. */
static void resize_product(const el_net *net, el_record *r, const el_record *before) {
  if (before && before->op != EL_RESCALE) {
    const size_t places = r->op == EL_DENSE ? positions(sides_out(before)) : 1;
    r->fan_in_active = (uint32_t)(places * before->active);
    if (r->op == EL_DENSE) r->window = places > 1 && r->fan_in_active < r->fan_in ? (uint32_t)places : 0;
  }
  const uint32_t groups = r->op == EL_CONV ? conv_groups(r) : 1, blocks = blocks_of(net->records, net->n_nodes);
  r->active = net->nest.units[(size_t)net->levels[r->block] * blocks + r->block];
  if (groups > 1) r->active = r->fan_in_active / (r->fan_in / groups) * (r->units / groups);
}

/* Statistics are kept for each width of the input of a block. */
static uint32_t statistics_at(const el_net *net, uint32_t block) {
  return block ? net->nest.statistics + net->nest.n_levels - 1 - net->levels[block - 1] : 0;
}

static void resize_record(const el_net *net, el_record *r, const el_record *before) {
  if (r->op == EL_RESCALE) return;
  if (r->op == EL_DENSE || r->op == EL_CONV) {
    resize_product(net, r, before);
    return;
  }
  if (!before) return; /* records_check() has a product in front */
  r->active = r->fan_in_active = before->active;
  if (r->op == EL_BATCHNORM && r->params > 4 * r->units) r->window = statistics_at(net, r->block);
}

static void resize_group(el_net *net, group *g) {
  const el_record *last = net->records + g->last;
  g->in = features_in(net->records + g->first);
  g->out = features_out(last);
  g->seen = positions(g->cells) * last->active;
  if (g->sum) share_sums(net, g);
}

/* Groups of channels run one by one, so a block of them is as wide as the one before it. */
static void level_grouped(el_net *net) {
  for (uint32_t i = 0; i < net->n_nodes; i++) {
    const el_record *r = net->records + i;
    const int grouped = r->op == EL_CONV && conv_groups(r) > 1;
    if (grouped) net->levels[r->block] = r->block ? net->levels[r->block - 1] : net->nest.n_levels - 1;
  }
}

static void resize(el_net *net) {
  level_grouped(net);
  for (uint32_t i = 0; i < net->n_nodes; i++) resize_record(net, net->records + i, i ? net->records + i - 1 : NULL);
  for (uint32_t i = 0; i < net->n_groups; i++) resize_group(net, net->groups + i);
}

/* The level whose share of [0, 1) a draw falls into. */
static uint32_t level_of(const el_nest *nest, uint32_t word) {
  float left = (float)(word >> 8) * 0x1p-24f;
  uint32_t level = 0;
  while (level + 1 < nest->n_levels && left >= nest->chances[level]) left -= nest->chances[level++];
  return level;
}

void nest_draw(el_net *net, uint64_t seed, uint64_t t) {
  if (!net->nest.n_levels) return;
  for (uint32_t b = 0; b < blocks_of(net->records, net->n_nodes); b++) {
    const uint32_t own = net->nest.sampling == EL_NEST_INDEPENDENT ? b : 0;
    net->levels[b] = level_of(&net->nest, philox(seed, own, (uint32_t)t, (uint32_t)(t >> 32), STREAM_WIDTHS).w[0]);
  }
  resize(net);
}

void nest_level(el_net *net, uint32_t level) {
  for (uint32_t b = 0; b < blocks_of(net->records, net->n_nodes); b++) net->levels[b] = level;
  resize(net);
}

void nest_whole(el_net *net) {
  if (net->nest.n_levels) nest_level(net, net->nest.n_levels - 1);
}

el_status el_net_resize(el_net *net, const uint32_t *levels) {
  if (!net) return EL_EINVAL;
  if (!levels) {
    nest_whole(net);
    return EL_OK;
  }
  if (!net->nest.n_levels) return EL_EINVAL;
  for (uint32_t b = 0; b < blocks_of(net->records, net->n_nodes); b++) {
    if (levels[b] >= net->nest.n_levels) return EL_EINVAL;
  }
  memcpy(net->levels, levels, blocks_of(net->records, net->n_nodes) * sizeof *levels);
  resize(net);
  return EL_OK;
}
