/* SPDX-License-Identifier: Apache-2.0 */
#include "rules.h"

#include <math.h>
#include <string.h>

#include "layers.h"
#include "pooling.h"
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

static float tau_of(const el_net *net, const group *g) { return net->config.rule.temperature * sqrtf((float)g->seen); }

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

/* The loss of a sample and its gradient, by the weight of its class. */
static double weigh(const el_net *net, float *d, size_t n, const step *s, uint32_t b, double loss) {
  if (!net->weights) return loss;
  const float weight = net->weights[s->labels[b]];
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
    *loss += (double)(rule->loss == EL_MSE ? net->k->l2(target, row, k) : net->k->huber(target, row, k, rule->huber));
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

/* logits e = h W / tau with W (u,K) given by strides; then d = e W^T / tau */
static void scored(const el_net *net, const step *s, view v, const float *w, size_t w_unit, size_t w_target, float tau,
                   double *loss) {
  const size_t k = net->config.rule.targets;
  float *e = net->scratch.logits;
  uint64_t unused = 0;
  net_gemm(net, &(gemm_job){.m = s->batch,
                            .n = k,
                            .k = v.u,
                            .alpha = 1 / tau,
                            .a = v.h,
                            .a_row = v.u,
                            .a_col = 1,
                            .b = w,
                            .b_row = w_unit,
                            .b_col = w_target,
                            .c = e,
                            .ldc = k});
  own_loss(net, e, k, s, loss, &unused);
  net_gemm(net, &(gemm_job){.m = s->batch,
                            .n = v.u,
                            .k = k,
                            .alpha = 1 / tau,
                            .a = e,
                            .a_row = k,
                            .a_col = 1,
                            .b = w,
                            .b_row = w_target,
                            .b_col = w_unit,
                            .c = v.d,
                            .ldc = v.u});
}

/* Scores by codes or by the read-out, and what a rule that compares samples adds to them. */
static void scores_and_similarity(const el_net *net, const group *g, const step *s, view v, double *loss) {
  const el_rule *rule = &net->config.rule;
  const int fixed = rule->objective == EL_TP_CE || rule->objective == EL_TP_CE_SIM;
  double own = 0;
  if (fixed) {
    codes_all(net, g);
    scored(net, s, v, net->scratch.codes, 1, v.u, tau_of(net, g), &own);
  } else {
    scored(net, s, v, g->readout, rule->targets, 1, tau_of(net, g), &own);
  }
  if (!compares(rule)) {
    *loss += own;
    return;
  }
  const float rest = 1 - rule->similarity;
  net->k->scale(v.d, rest, s->batch * v.u);
  net->k->scale(net->scratch.logits, rest, (size_t)s->batch * rule->targets);
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
  net->k->scale(net->scratch.logits, 1 / tau_of(net, g), batch * k);
  const outer p = {.x = v.h, .inputs = v.u, .ldx = v.u, .d = net->scratch.logits, .units = k, .batch = batch};
  learn_product(net, g->readout, k, g->readout_sum, g->moments, &p, by);
}
