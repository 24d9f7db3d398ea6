/* SPDX-License-Identifier: Apache-2.0 */
#include "nest.h"

#include <string.h>

#include "philox.h"
#include "room.h"
#include "sequence.h"

static uint32_t blocks_of(const el_record *records, uint32_t n) { return records[n - 1].block + 1; }

el_nest place_nest(uint32_t n, const el_config *c, arena *a) {
  el_nest nest = c->nest;
  const size_t widths = (size_t)nest.n_levels * n;
  uint32_t *units = arena_take(a, nest.n_levels ? widths : 0, sizeof *units);
  float *chances = arena_take(a, nest.n_levels, sizeof *chances);
  if (!a->base || a->failed || !nest.n_levels) return nest;
  nest.units = memcpy(units, c->nest.units, widths * sizeof *units);
  nest.chances = memcpy(chances, c->nest.chances, nest.n_levels * sizeof *chances);
  return nest;
}

uint32_t nest_units(const el_net *net, uint32_t level, uint32_t i) {
  return net->nest.units[(size_t)level * net->n_nodes + i];
}

uint32_t nest_product(const el_net *net, uint32_t i) {
  while (!is_weighty(net->records[i].op)) i--;
  return i;
}

int nest_varies(const el_net *net, uint32_t i) { return nest_units(net, 0, i) != net->records[i].units; }

static int is_grouped(const el_record *r) { return r->op == EL_CONV && conv_groups(r) > 1; }

/* A product reads what the record before it gives. */
static void resize_input(el_record *r, const el_record *before) {
  const size_t places = r->op == EL_DENSE ? positions(sides_out(before)) : 1;
  r->fan_in_active = (uint32_t)(places * before->active);
  if (r->op == EL_DENSE) r->window = places > 1 && r->fan_in_active < r->fan_in ? (uint32_t)places : 0;
}

/* It gives what its block's level says, in groups what its inputs say. */
static void resize_product(const el_net *net, uint32_t i, int is_first) {
  el_record *r = net->records + i;
  if (r->op == EL_EMBEDDING) return;
  if (!is_first) resize_input(r, r - 1);
  r->active = nest_units(net, net->levels[r->block], i);
  if (is_grouped(r)) r->active = r->fan_in_active / (r->fan_in / conv_groups(r)) * (r->units / conv_groups(r));
}

/* All others have the width of what they read; an attention that of its values. */
static void resize_other(el_record *r) {
  r->fan_in_active = r[-1].active;
  r->active = r->op == EL_ATTENTION ? r[-1].active / 3 : r[-1].active;
}

/* Which statistics go with what a product gives: one pair for each of its widths. */
static uint32_t statistics_behind(const el_net *net, uint32_t i) {
  const uint32_t top = net->nest.n_levels - 1;
  return nest_varies(net, i) ? net->nest.statistics + top - net->levels[net->records[i].block] : 0;
}

static void resize_group(el_net *net, group *g) {
  const el_record *last = net->records + g->last;
  g->in = features_in(net->records + g->first);
  g->out = out_of(g, last);
  g->seen = positions(g->cells) * last->active;
  if (g->sum) share_sums(net, g);
}

/* Groups of channels run one by one, so a block that they open is as wide as the one before it. */
static void level_grouped(el_net *net) {
  for (uint32_t i = 0; i < net->n_nodes; i++) {
    const el_record *r = net->records + i;
    const int opens = !i || r[-1].op == EL_RESCALE || r[-1].block != r->block;
    if (!opens || !is_grouped(r) || (r->block && !nest_varies(net, i))) continue;
    net->levels[r->block] = r->block ? net->levels[r->block - 1] : net->nest.n_levels - 1;
  }
}

/* What comes before the first product stays as it is, since samples do. */
static void resize_records(el_net *net) {
  uint32_t read = 0, given = 0;
  int products = 0;
  for (uint32_t i = 0; i < net->n_nodes; i++) {
    el_record *r = net->records + i;
    if (is_weighty(r->op)) {
      read = given;
      resize_product(net, i, !products++);
      given = statistics_behind(net, i);
    } else if (products) {
      resize_other(r);
    }
    if (r->op == EL_BATCHNORM && r->params > 4 * r->units) r->window = read;
  }
}

static void resize(el_net *net) {
  level_grouped(net);
  resize_records(net);
  for (uint32_t i = 0; i < net->n_groups; i++) resize_group(net, net->groups + i);
  if (net->sequence) sequence_resize(net);
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
  if (!net || (levels && !net->nest.n_levels)) return EL_EINVAL;
  if (!levels) nest_whole(net);
  for (uint32_t stream = 0; net->sequence && stream < net->config.batch; stream++) el_net_reset(net, stream);
  if (!levels) return EL_OK;
  for (uint32_t b = 0; b < blocks_of(net->records, net->n_nodes); b++) {
    if (levels[b] >= net->nest.n_levels) return EL_EINVAL;
  }
  memcpy(net->levels, levels, blocks_of(net->records, net->n_nodes) * sizeof *levels);
  resize(net);
  return EL_OK;
}
