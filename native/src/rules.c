/* SPDX-License-Identifier: Apache-2.0 */
#include "rules.h"

#include <math.h>
#include <string.h>

#include "layers.h"

static void codes_fill(const kernel_table *k, float *out, const el_rule *rule, uint32_t block, uint32_t target,
                       uint32_t units) {
  const float bound = rule->codes == EL_CODES_HE_UNIFORM ? sqrtf(6.0f / (float)units) : 1.0f;
  const code_stream stream = {rule->seed, block, target, rule->codes, rule->scale * bound};
  k->codes(out, units, &stream);
}

void codes_row(const el_net *net, float *out, const el_rule *rule, uint32_t block, uint32_t target, uint32_t units) {
  codes_fill(net->k, out, rule, block, target, units);
}

void el_codes(const el_rule *rule, uint32_t block, uint32_t target, uint32_t units, float *out) {
  codes_fill(kernels_for(EL_ISA_AUTO), out, rule, block, target, units);
}

/* scratch.codes (K,U), regenerated from the seed */
static void codes_all(const el_net *net, const group *g) {
  const el_rule *rule = &net->config.rule;
  for (uint32_t c = 0; c < rule->targets; c++) {
    codes_row(net, net->scratch.codes + (size_t)c * g->out, rule, g->block, c, g->out);
  }
}

/* d (B,U) = the code of each sample's label, or y P in regression */
static void codes_of_batch(const el_net *net, const group *g, const step *s) {
  const el_rule *rule = &net->config.rule;
  const size_t u = g->out, k = rule->targets;
  float *d = net->scratch.d;
  if (rule->loss == EL_CROSS_ENTROPY && s->batch < k) {
    for (uint32_t b = 0; b < s->batch; b++) codes_row(net, d + b * u, rule, g->block, (uint32_t)s->labels[b], g->out);
    return;
  }
  codes_all(net, g);
  if (rule->loss == EL_CROSS_ENTROPY) {
    for (uint32_t b = 0; b < s->batch; b++) {
      memcpy(d + b * u, net->scratch.codes + (size_t)s->labels[b] * u, u * sizeof *d);
    }
    return;
  }
  net_gemm(net, &(gemm_job){.m = s->batch,
                            .n = u,
                            .k = k,
                            .alpha = 1,
                            .a = s->targets,
                            .a_row = k,
                            .a_col = 1,
                            .b = net->scratch.codes,
                            .b_row = u,
                            .b_col = 1,
                            .c = d,
                            .ldc = u});
}

static float distance(const el_net *net, float *d, const float *h, size_t n) {
  switch (net->config.rule.objective) {
    case EL_TP_L1: return net->k->l1(d, h, n);
    case EL_TP_HUBER: return net->k->huber(d, h, n, net->config.rule.huber);
    case EL_TP_LINEAR: return net->k->linear(d, h, n);
    default: return net->k->l2(d, h, n);
  }
}

static void target_projection(const el_net *net, const group *g, const step *s, double *loss) {
  const size_t u = g->out;
  codes_of_batch(net, g, s);
  for (uint32_t b = 0; b < s->batch; b++) *loss += (double)distance(net, net->scratch.d + b * u, g->h + b * u, u);
}

/* e (B,K), logits on entry, becomes softmax - onehot. */
static void cross_entropy(const el_net *net, float *e, size_t k, const step *s, double *loss, uint64_t *correct) {
  for (uint32_t b = 0; b < s->batch; b++) {
    float *row = e + b * k;
    const int32_t label = s->labels[b];
    const float logit = row[label];
    size_t best = 0;
    for (size_t i = 1; i < k; i++) best = row[i] > row[best] ? i : best;
    *correct += best == (size_t)label;
    *loss += (double)(net->k->softmax(row, k) - logit);
    row[label] -= 1;
  }
}

/* e (B,K), predictions on entry, becomes the gradient of the regression loss against the targets. */
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

/* logits e = h M / tau with M (U,K) given by strides; then d = e M^T / tau */
static void scored(const el_net *net, const group *g, const step *s, const float *m, size_t m_unit, size_t m_target,
                   float tau, double *loss) {
  const size_t u = g->out, k = net->config.rule.targets;
  float *e = net->scratch.logits;
  uint64_t unused = 0;
  net_gemm(net, &(gemm_job){.m = s->batch,
                            .n = k,
                            .k = u,
                            .alpha = 1 / tau,
                            .a = g->h,
                            .a_row = u,
                            .a_col = 1,
                            .b = m,
                            .b_row = m_unit,
                            .b_col = m_target,
                            .c = e,
                            .ldc = k});
  own_loss(net, e, k, s, loss, &unused);
  net_gemm(net, &(gemm_job){.m = s->batch,
                            .n = u,
                            .k = k,
                            .alpha = 1 / tau,
                            .a = e,
                            .a_row = k,
                            .a_col = 1,
                            .b = m,
                            .b_row = m_target,
                            .b_col = m_unit,
                            .c = net->scratch.d,
                            .ldc = u});
}

void objective(const el_net *net, const group *g, int is_output, const step *s, double *loss) {
  const el_rule *rule = &net->config.rule;
  if (is_output) {
    memcpy(net->scratch.d, g->h, (size_t)s->batch * g->out * sizeof(float));
    own_loss(net, net->scratch.d, g->out, s, loss, &s->stats->correct);
  } else if (rule->objective == EL_TP_CE) {
    codes_all(net, g);
    scored(net, g, s, net->scratch.codes, 1, g->out, rule->temperature * sqrtf((float)g->out), loss);
  } else if (rule->objective == EL_READOUT) {
    scored(net, g, s, g->readout, rule->targets, 1, rule->temperature * sqrtf((float)g->out), loss);
  } else {
    target_projection(net, g, s, loss);
  }
}

void readout_update(const el_net *net, const group *g, uint32_t batch, update by) {
  const size_t k = net->config.rule.targets;
  if (!g->readout) return;
  net->k->scale(net->scratch.logits, 1 / (net->config.rule.temperature * sqrtf((float)g->out)), batch * k);
  update_matrix(net, g->readout, k, g->moments, g->h, g->out, net->scratch.logits, k, batch, by);
}
