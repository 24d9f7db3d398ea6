/* SPDX-License-Identifier: Apache-2.0
 * Which tables of records are nets. Everything behind this check may rely on them. */
#include <math.h>

#include "residual.h"
#include "walk.h"

enum { MOST_FEATURES = 1 << 30, MOST_STEPS = 0xFFFF };

/* Whether it leaves another number of features than it reads. */
static int is_widening(uint32_t op) { return is_weighty(op) || op == EL_ATTENTION; }

static int takes_flags(uint32_t op) {
  return op == EL_DENSE || op == EL_ATTENTION || is_windowed(op) || is_recurrent(op);
}

static int is_known(uint32_t op) { return (op >= EL_RESCALE && op <= EL_LSTM) || (op >= EL_EMBEDDING && op <= EL_ADD); }

/* Gain and shift, then at least one pair of means and variances, of which `window` names one. */
static int statistics_fit(const el_record *r) {
  const uint64_t pair = (uint64_t)r->units * 2, pairs = r->params / pair;
  return r->params % pair == 0 && pairs > 1 && r->window < pairs - 1;
}

static int params_fit(const el_record *r) {
  const uint64_t bias = r->flags & EL_FLAG_BIAS ? r->stride : 0;
  if (is_recurrent(r->op)) {
    const uint64_t biases = r->flags & EL_FLAG_BIAS ? 1 + (r->op == EL_GRU) : 0;
    return r->params == ((uint64_t)r->fan_in + r->units + biases) * gates_of(r->op) * r->units;
  }
  switch (r->op) {
    case EL_DENSE: return r->params == (uint64_t)r->fan_in * r->stride + bias;
    case EL_CONV: return r->params == (uint64_t)(runs_of(r).count * runs_of(r).stored) * r->stride + bias;
    case EL_BATCHNORM: return statistics_fit(r);
    case EL_LAYERNORM: return r->params == (uint64_t)r->units * 2;
    case EL_EMBEDDING: return r->params && r->params % r->stride == 0;
    case EL_POSITIONS: return r->params == positions(sides_in(r)) * r->units;
    case EL_RESCALE: return r->params >= 2 && r->params % 2 == 0 && r->units % (r->params / 2) == 0;
    default: return r->params == 0;
  }
}

static int argument_fits(const el_record *r) {
  if (r->op == EL_DROPOUT) return r->arg[0] >= 0 && r->arg[0] < 1;
  if (r->op == EL_BATCHNORM) return r->arg[0] > 0 && r->arg[1] >= 0 && r->arg[1] < 1;
  if (r->op == EL_LAYERNORM) return r->arg[0] > 0;
  return is_known(r->op);
}

/* Tokens come one at each place; heads are whole, each with its queries, keys and values. */
static int sequence_fits(const el_record *r) {
  const uint32_t heads = conv_groups(r);
  if (r->op == EL_EMBEDDING) return r->size >> 16 == 1 && r->fan_in == 1;
  if (r->op == EL_POSITIONS) return r->active == r->units;
  if (r->op != EL_ATTENTION) return 1;
  if (!r->size || positions(sides_in(r)) > MOST_STEPS || r->units % heads || r->active % (r->units / heads)) return 0;
  return r->fan_in == (uint64_t)3 * r->units && r->fan_in_active == (uint64_t)3 * r->active;
}

/* Several groups are in use as a prefix of whole ones. */
static int groups_fit(const el_record *r) {
  const uint32_t groups = conv_groups(r);
  if (r->fan_in % groups || r->units % groups || weight_rows(r) > MOST_FEATURES) return 0;
  const uint32_t inputs = r->fan_in / groups;
  return groups == 1 ||
         (r->fan_in_active % inputs == 0 && r->active == r->fan_in_active / inputs * (r->units / groups));
}

/* Kernel, strides and map of what slides over one; nothing of the kind elsewhere. */
static int window_fits(const el_record *r) {
  const sides out = sides_out(r);
  if (r->op == EL_DENSE && r->window) return r->fan_in % r->window == 0 && r->fan_in_active % r->window == 0;
  if (!is_windowed(r->op)) return r->window == 0 || r->op == EL_BATCHNORM;
  if (r->op == EL_CONV && !groups_fit(r)) return 0;
  return r->size && out.h && out.w;
}

static int map_fits(const el_record *r) {
  const sides in = sides_in(r);
  if ((r->op == EL_DENSE || r->op == EL_RESCALE || r->op == EL_SOFTMAX) && r->size) return 0;
  if (is_recurrent(r->op) && (!r->size || in.h != 1)) return 0;
  if (!in.h || !in.w || r->fan_in > MOST_FEATURES || r->units > MOST_FEATURES || !window_fits(r)) return 0;
  if (!sequence_fits(r)) return 0;
  return features_in(r) <= MOST_FEATURES && features_out(r) <= MOST_FEATURES;
}

/* A map is read as such, as a sequence or as one vector; a vector may be read as a map, as the input is. */
static int joins(const el_record *r, const el_record *before) {
  if (r->size && before->size && before->op != EL_GLOBAL_AVGPOOL) {
    const sides from = sides_out(before), to = sides_in(r);
    if (to.h != 1 && (from.h != to.h || from.w != to.w)) return 0;
    if (r->fan_in != before->units) return 0;
  }
  if (r->size && positions(sides_in(r)) > 1 && !before->size && before->op != EL_RESCALE) return 0;
  const size_t places = positions(sides_out(before));
  if (r->op == EL_DENSE && is_cut(r) && places > 1 && r->window != places) return 0;
  return features_in(r) == features_out(before) &&
         positions(sides_in(r)) * r->fan_in == positions(sides_out(before)) * before->units;
}

static int shape_fits(const el_record *r, const el_record *before) {
  if (!r->active || r->active > r->units || r->units > r->stride) return 0;
  if (!r->fan_in_active || r->fan_in_active > r->fan_in) return 0;
  if (!map_fits(r) || (before && !joins(r, before))) return 0;
  return is_widening(r->op) || (r->units == r->fan_in && r->active == r->fan_in_active);
}

static int place_fits(const el_record *records, uint32_t n, uint32_t i) {
  const el_record *r = records + i, *before = i ? r - 1 : NULL;
  if (r->input[0] != (int32_t)i - 1 || !addition_fits(records, i)) return 0;
  if (r->op == EL_RESCALE && i) return 0;
  if (r->op == EL_EMBEDDING && before && before->op != EL_RESCALE) return 0;
  if (r->op == EL_SOFTMAX && i + 1 != n) return 0;
  if (!before || before->op == EL_RESCALE) return r->block == 0;
  if (r->op == EL_DROPOUT && before->op == EL_DROPOUT) return 0;
  return r->block == before->block || r->block == before->block + 1;
}

/* A block without weights would have an objective and nothing that learns from it. */
static int blocks_have_weights(const el_record *records, uint32_t n) {
  int weighty = 0;
  for (uint32_t i = 0; i < n; i++) {
    if (i && records[i].block != records[i - 1].block) {
      if (!weighty) return 0;
      weighty = 0;
    }
    weighty |= is_weighty(records[i].op);
  }
  return weighty;
}

/* Recurrent records follow each other, and what makes one step of many ends their block. */
static int section_fits(const el_record *records, uint32_t n) {
  const section s = section_of(records, n);
  for (uint32_t i = s.any ? s.last + 1 : n; i < n; i++) {
    if (is_recurrent(records[i].op)) return 0;
    if (records[i].block == records[s.last].block && records[i].op != EL_SOFTMAX) return 0;
  }
  return 1;
}

/* All recurrent records of a net have one padding, or none; then it begins with them and hands on the last step. */
static int padding_fits(const el_record *records, uint32_t n) {
  const section s = section_of(records, n);
  const el_record *front = records + s.first;
  uint32_t last = s.first;
  for (uint32_t i = s.first; s.any && i <= s.last; i++) {
    if (!is_recurrent(records[i].op)) continue;
    if ((records[i].flags ^ front->flags) & EL_FLAG_PADDED || records[i].arg[1] != front->arg[1]) return 0;
    last = i;
  }
  if (!s.any || !(front->flags & EL_FLAG_PADDED)) return 1;
  return (s.first == 0 || records[s.first - 1].op == EL_RESCALE) && !(records[last].flags & EL_FLAG_SEQUENCES);
}

/* Groups begin with their recurrent records, of which all but the last hand on every step; traces are of one at a time;
 * what waits for the last step sees no other. */
static int steps_fit(const el_record *records, uint32_t n, const el_config *c) {
  const section s = section_of(records, n);
  if (!s.any) return 1;
  const uint32_t steps = c->rule.window ? c->rule.window : 1, size = c->rule.group;
  if (steps > sides_in(records + s.first).w || c->rule.timing > EL_LATE || (c->rule.traces && steps > 1)) return 0;
  uint32_t last = s.first;
  for (uint32_t i = s.first + 1; i <= s.last; i++) {
    if (!is_recurrent(records[i].op)) continue;
    if (c->rule.traces && records[i].block / size == records[last].block / size) return 0;
    last = i;
  }
  if (records[s.first].flags & EL_FLAG_PADDED && c->rule.objective >= EL_READOUT_SIM) return 0;
  const group g = group_at(records, n, c, records[s.last].block / size);
  if (g.tail && records[last].flags & EL_FLAG_SEQUENCES) return 0;
  const group front = group_at(records, n, c, records[s.first].block / size);
  return front.first == s.first || records[s.first - 1].op == EL_RESCALE;
}

static int factors_fit(const float *factors, uint32_t n) {
  for (uint32_t i = 0; factors && i < n; i++) {
    if (!(factors[i] >= 0) || !isfinite(factors[i])) return 0;
  }
  return 1;
}

/* Whether what record i gives has all of its units at every level; -1: the sample. */
static int is_whole(const el_record *records, const el_nest *nest, int64_t i) {
  while (i >= 0 && !is_weighty(records[i].op)) i--;
  return i < 0 || nest->units[i] == records[i].units;
}

/* Units in use rise from level to level, by whole groups or heads, to those as placed. */
static int levels_rise(const el_record *records, uint32_t n, const el_nest *nest, uint32_t i) {
  const el_record *r = records + i;
  const int has_heads = i + 1 < n && r[1].op == EL_ATTENTION;
  const uint32_t groups = has_heads ? conv_groups(r + 1) : r->op == EL_CONV ? conv_groups(r) : 1;
  for (uint32_t level = 0, before = 1; level < nest->n_levels; level++) {
    const uint32_t units = nest->units[(size_t)level * n + i];
    if (units < before || (groups > 1 && units % (r->units / groups))) return 0;
    before = units;
  }
  return nest->units[(size_t)(nest->n_levels - 1) * n + i] == r->active;
}

/* What is added, has places of its own, is looked up or leaves the net has one width. */
static int nest_fits(const el_record *records, uint32_t n, const el_nest *nest) {
  if (!nest->n_levels) return 1;
  if (nest->sampling > EL_NEST_EVERY || !nest->units || !nest->chances || !factors_fit(nest->chances, nest->n_levels))
    return 0;
  for (uint32_t i = 0; i < n; i++) {
    const el_record *r = records + i;
    const int stays = r->op == EL_ADD || r->op == EL_POSITIONS || r->op == EL_EMBEDDING || i + 1 == n;
    if (is_weighty(r->op) && !levels_rise(records, n, nest, i)) return 0;
    if (stays && !is_whole(records, nest, i)) return 0;
    if (r->op == EL_ADD && !is_whole(records, nest, r->input[1])) return 0;
    if (r->op == EL_ATTENTION && !is_weighty(r[-1].op)) return 0;
  }
  return 1;
}

/* A pair for each level, or one for all. */
static int statistics_of_levels(const el_record *r, const el_nest *nest) {
  const uint64_t pairs = r->params / (2 * (uint64_t)r->units) - 1;
  return pairs == 1 || (uint64_t)nest->statistics + nest->n_levels <= pairs;
}

static el_status rule_check(const el_record *last, const el_config *c) {
  const el_rule *r = &c->rule;
  if (c->n_rates && (!c->rates || c->n_rates != last->block + 1 || !factors_fit(c->rates, c->n_rates)))
    return EL_EINVAL;
  if (!factors_fit(c->weights, r->targets) || (c->weights && r->loss != EL_CROSS_ENTROPY)) return EL_EINVAL;
  if (!(r->clip >= 0) || !(r->similarity >= 0) || r->similarity > 1) return EL_EINVAL;
  if (r->objective > EL_TP_CE_SIM || r->codes > EL_CODES_PAIRED || r->loss > EL_HUBER) return EL_EINVAL;
  if (positions(sides_out(last)) > 1 || (r->objective >= EL_READOUT_SIM && r->loss != EL_CROSS_ENTROPY))
    return EL_EINVAL;
  if (!r->group || r->targets != last->active || c->optimizer.kind > EL_ADAM || r->traces > 1) return EL_EINVAL;
  if (r->loss != EL_CROSS_ENTROPY && (r->objective == EL_TP_CE || last->op == EL_SOFTMAX)) return EL_EINVAL;
  return r->temperature > 0 && r->huber > 0 && r->scale > 0 ? EL_OK : EL_EINVAL;
}

el_status records_check(const el_record *records, uint32_t n, const el_config *config) {
  if (!records || !n || !config || !config->batch || !config->threads || config->threads > POOL_MAX) return EL_EINVAL;
  for (uint32_t i = 0; i < n; i++) {
    const el_record *r = records + i;
    if (!argument_fits(r) || !shape_fits(r, i ? r - 1 : NULL)) return EL_EINVAL;
    if (!params_fit(r) || !place_fits(records, n, i)) return EL_EINVAL;
    if (!takes_flags(r->op) && r->flags) return EL_EINVAL;
    if (!is_product(r->op) && !is_recurrent(r->op) && r->flags & EL_FLAG_NESTED) return EL_EINVAL;
    if (!is_recurrent(r->op) && r->flags & EL_FLAG_PADDED) return EL_EINVAL;
    if (r->op == EL_BATCHNORM && config->nest.n_levels && !statistics_of_levels(r, &config->nest)) return EL_EINVAL;
  }
  if (!blocks_have_weights(records, n) || !section_fits(records, n) || !padding_fits(records, n) ||
      !nest_fits(records, n, &config->nest))
    return EL_EINVAL;
  const el_status status = config->train ? rule_check(records + n - 1, config) : EL_OK;
  return !status && config->train && !steps_fit(records, n, config) ? EL_EINVAL : status;
}
