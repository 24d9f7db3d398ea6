/* SPDX-License-Identifier: Apache-2.0 */
#include "rules.h"

#include <math.h>
#include <string.h>

#include "nest.h"
#include "pooling.h"
#include "product.h"
#include "similarity.h"

/* The first `units` of the `of` that a code is made for. */
static void codes_fill(const kernel_table *k, float *out, const el_rule *rule, uint32_t block, uint32_t target,
                       uint32_t units, size_t of) {
  const float bound = rule->codes == EL_CODES_HE_UNIFORM ? sqrtf(6.0f / (float)of) : 1.0f;
  const code_stream stream = {rule->seed, block, target, rule->codes, rule->scale * bound};
  k->codes(out, units, &stream);
}

static void codes_row(const el_net *net, float *out, const group *g, uint32_t target) {
  codes_fill(net->k, out, &net->config.rule, g->block, target, (uint32_t)g->seen, g->coded);
}

void el_codes(const el_rule *rule, uint32_t block, uint32_t target, uint32_t units, float *out) {
  codes_fill(kernels_for(EL_ISA_AUTO), out, rule, block, target, units, units);
}

/* What an objective looks at: h (M,u), and where the error of that goes. */
typedef struct view {
  const float *h;
  float *d;
  size_t u;
} view;

static view view_of(const el_net *net, const group *g) {
  const int pooled = is_viewed(g);
  return (view){pooled ? net->scratch.q : g->y, pooled ? net->scratch.dq : g->error, g->seen};
}

/* scratch.codes (K,u), regenerated from the seed */
static void codes_all(const el_net *net, const group *g) {
  for (uint32_t c = 0; c < net->config.rule.targets; c++) codes_row(net, net->scratch.codes + c * g->seen, g, c);
}

/* d (M,u) = the code of each sample's label, or y P in regression */
static void codes_of_batch(const el_net *net, const group *g, const step *s, view v) {
  const el_rule *rule = &net->config.rule;
  const size_t k = rule->targets;
  const int labelled = rule->loss == EL_CROSS_ENTROPY, few = s->batch < k;
  if (!labelled || !few) codes_all(net, g);
  for (uint32_t b = 0; labelled && b < s->batch; b++) {
    float *row = v.d + b * v.u;
    const uint32_t label = (uint32_t)s->labels[b];
    if (few) {
      codes_row(net, row, g, label);
    } else {
      memcpy(row, net->scratch.codes + label * v.u, v.u * sizeof *row);
    }
  }
  if (labelled) return;
  net_gemm(net, &(gemm_job){.m = s->batch,
                            .n = v.u,
                            .k = k,
                            .alpha = 1,
                            .a = s->targets,
                            .a_row = k,
                            .a_col = 1,
                            .b = net->scratch.codes,
                            .b_row = v.u,
                            .b_col = 1,
                            .c = v.d,
                            .ldc = v.u});
}

static float distance(const el_net *net, float *d, const float *h, size_t n) {
  switch (net->config.rule.objective) {
    case EL_TP_L1: return net->k->l1(d, h, n);
    case EL_TP_HUBER: return net->k->huber(d, h, n, net->config.rule.huber);
    case EL_TP_LINEAR: return net->k->linear(d, h, n);
    default: return net->k->l2(d, h, n);
  }
}

/* The loss of a sample and its gradient, by the weights of its class and of its step. */
static double weigh(const el_net *net, float *d, size_t n, const step *s, uint32_t b, double loss) {
  if (!net->weights && !s->weights) return loss;
  const float weight = (net->weights ? net->weights[s->labels[b]] : 1) * (s->weights ? s->weights[b] : 1);
  net->k->scale(d, weight, n);
  return loss * (double)weight;
}

static void target_projection(const el_net *net, const group *g, const step *s, view v, double *loss) {
  codes_of_batch(net, g, s, v);
  for (uint32_t b = 0; b < s->batch; b++) {
    float *d = v.d + b * v.u;
    *loss += weigh(net, d, v.u, s, b, (double)distance(net, d, v.h + b * v.u, v.u));
  }
}

/* e (M,K), logits on entry, becomes softmax - onehot. */
static void cross_entropy(const el_net *net, float *e, size_t k, const step *s, double *loss, uint64_t *correct) {
  for (uint32_t b = 0; b < s->batch; b++) {
    float *row = e + b * k;
    const int32_t label = s->labels[b];
    const float logit = row[label];
    size_t best = 0;
    for (size_t i = 1; i < k; i++) best = row[i] > row[best] ? i : best;
    *correct += best == (size_t)label;
    const double own = (double)(net->k->softmax(row, k) - logit);
    row[label] -= 1;
    *loss += weigh(net, row, k, s, b, own);
  }
}

/* e (M,K), predictions on entry, becomes the gradient of the regression loss against the targets. */
static void regression(const el_net *net, float *e, size_t k, const step *s, double *loss) {
  const el_rule *rule = &net->config.rule;
  float *target = net->scratch.columns;
  for (uint32_t b = 0; b < s->batch; b++) {
    float *row = e + b * k;
    memcpy(target, s->targets + b * k, k * sizeof *target);
    const float own = rule->loss == EL_MSE ? net->k->l2(target, row, k) : net->k->huber(target, row, k, rule->huber);
    *loss += weigh(net, target, k, s, b, (double)own);
    memcpy(row, target, k * sizeof *row);
  }
}

static void own_loss(const el_net *net, float *e, size_t k, const step *s, double *loss, uint64_t *correct) {
  if (net->config.rule.loss == EL_CROSS_ENTROPY) {
    cross_entropy(net, e, k, s, loss, correct);
  } else {
    regression(net, e, k, s, loss);
  }
}

/* Widths of a group whose prefixes have a loss each: those up to the one in use; what has one width has one loss. */
static uint32_t levels_of(const el_net *net, const group *g) {
  const int varies = net->nest.n_levels && nest_varies(net, nest_product(net, g->last));
  return varies ? net->levels[g->block] + 1 : 1;
}

/* What the objective sees of a group at a width. */
static size_t level_end(const el_net *net, const group *g, uint32_t level) {
  if (!net->nest.n_levels) return g->seen;
  return positions(g->cells) * nest_units(net, level, nest_product(net, g->last));
}

static float *level_logits(const el_net *net, uint32_t level) {
  return net->scratch.logits + level * (size_t)micro_of(&net->config) * net->config.rule.targets;
}

static float tau_at(const el_net *net, size_t seen) { return net->config.rule.temperature * sqrtf((float)seen); }

/* W (u,K) of scores, given by its strides. */
typedef struct scores {
  const float *w;
  size_t unit, target;
} scores;

/* logits (M,K) of each level: h W / tau over its prefix, which begins with that of the level below */
static void level_scores(const el_net *net, const group *g, uint32_t batch, view v, scores by) {
  const size_t k = net->config.rule.targets;
  for (uint32_t level = 0, n = levels_of(net, g); level < n; level++) {
    const size_t from = level ? level_end(net, g, level - 1) : 0, end = level_end(net, g, level);
    float *e = level_logits(net, level);
    if (level) {
      memcpy(e, level_logits(net, level - 1), batch * k * sizeof *e);
      net->k->scale(e, tau_at(net, from) / tau_at(net, end), batch * k);
    }
    net_gemm(net, &(gemm_job){.m = batch,
                              .n = k,
                              .k = end - from,
                              .alpha = 1 / tau_at(net, end),
                              .beta = level ? 1 : 0,
                              .a = v.h + from,
                              .a_row = v.u,
                              .a_col = 1,
                              .b = by.w + from * by.unit,
                              .b_row = by.unit,
                              .b_col = by.target,
                              .c = e,
                              .ldc = k});
  }
}

/* d = the error of h: what lies in several prefixes has the error of each, added up in the logits of the narrowest. */
static void level_errors(const el_net *net, const group *g, uint32_t batch, view v, scores by) {
  const size_t k = net->config.rule.targets;
  const uint32_t n = levels_of(net, g);
  for (uint32_t level = n; level-- > 0;) {
    const size_t from = level ? level_end(net, g, level - 1) : 0, end = level_end(net, g, level);
    float *e = level_logits(net, level);
    if (level + 1 < n) { /* where two widths are the same units, too */
      net->k->scale(e, tau_at(net, v.u) / tau_at(net, end), batch * k);
      net->k->axpy(e, 1, level_logits(net, level + 1), batch * k);
    }
    net_gemm(net, &(gemm_job){.m = batch,
                              .n = end - from,
                              .k = k,
                              .alpha = 1 / tau_at(net, v.u),
                              .a = e,
                              .a_row = k,
                              .a_col = 1,
                              .b = by.w + from * by.unit,
                              .b_row = by.target,
                              .b_col = by.unit,
                              .c = v.d + from,
                              .ldc = v.u});
  }
}

/* The loss of scores by W (u,K), and its gradient. In a nested net every prefix has such a loss (Kusupati et al. 2022,
 * equation 1, within one layer), at the cost of one. */
static void scored(const el_net *net, const group *g, const step *s, view v, scores by, double *loss) {
  const size_t k = net->config.rule.targets;
  uint64_t unused = 0;
  level_scores(net, g, s->batch, v, by);
  for (uint32_t level = 0, n = levels_of(net, g); level < n; level++) {
    own_loss(net, level_logits(net, level), k, s, loss, &unused);
  }
  level_errors(net, g, s->batch, v, by);
}

/* Scores by codes or by the read-out, and what a rule that compares samples adds to them. */
static void scores_and_similarity(const el_net *net, const group *g, const step *s, view v, double *loss) {
  const el_rule *rule = &net->config.rule;
  const int fixed = rule->objective == EL_TP_CE || rule->objective == EL_TP_CE_SIM;
  double own = 0;
  if (fixed) {
    codes_all(net, g);
    scored(net, g, s, v, (scores){net->scratch.codes, 1, v.u}, &own);
  } else {
    scored(net, g, s, v, (scores){g->readout, rule->targets, 1}, &own);
  }
  if (!compares(rule)) {
    *loss += own;
    return;
  }
  const float rest = 1 - rule->similarity;
  net->k->scale(v.d, rest, s->batch * v.u);
  for (uint32_t level = 0, n = levels_of(net, g); level < n; level++) {
    net->k->scale(level_logits(net, level), rest, (size_t)s->batch * rule->targets);
  }
  *loss += (double)rest * own;
  similarity_objective(net, g, s, v.h, v.d, rule->similarity, loss);
}

static void hidden_objective(const el_net *net, const group *g, const step *s, view v, double *loss) {
  if (net->config.rule.objective < EL_TP_CE) {
    target_projection(net, g, s, v, loss);
  } else {
    scores_and_similarity(net, g, s, v, loss);
  }
}

void objective(const el_net *net, const group *g, int is_output, const step *s, double *loss) {
  if (is_output) {
    memcpy(g->error, g->y, s->batch * g->out * sizeof(float));
    own_loss(net, g->error, g->out, s, loss, &s->stats->correct);
    return;
  }
  const view v = view_of(net, g);
  const raster over = {g->map, g->cells, g->seen / positions(g->cells), g->by_channel};
  if (v.h != g->y) grid_forward(net, net->scratch.q, g->y, &over, s->batch);
  hidden_objective(net, g, s, v, loss);
  if (v.h != g->y) grid_back(net, g->error, v.d, &over, s->batch);
}

void readout_learn(const el_net *net, const group *g, uint32_t batch, update by) {
  const size_t k = net->config.rule.targets;
  if (!g->readout) return;
  const view v = view_of(net, g);
  for (uint32_t level = 0, n = levels_of(net, g); level < n; level++) {
    const size_t from = level ? level_end(net, g, level - 1) : 0, end = level_end(net, g, level);
    float *e = level_logits(net, level), *sum = g->readout_sum ? g->readout_sum + from * k : NULL;
    const moments m = {
        {g->moments[0] ? g->moments[0] + from * k : NULL, g->moments[1] ? g->moments[1] + from * k : NULL}, k};
    const outer p = {.x = v.h + from, .inputs = end - from, .ldx = v.u, .d = e, .units = k, .batch = batch};
    net->k->scale(e, 1 / tau_at(net, v.u), batch * k);
    if (end > from) learn_product(net, g->readout + from * k, k, sum, m, &p, by);
  }
}
