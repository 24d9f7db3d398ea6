/* SPDX-License-Identifier: Apache-2.0
 * Which tables of records are nets. Everything behind this check may rely on them. */
#include "walk.h"

static int is_elementwise(uint32_t op) { return op >= EL_RELU && op <= EL_SIGMOID; }

static int params_fit(const el_record *r) {
  const uint64_t bias = r->flags & EL_FLAG_BIAS ? r->stride : 0;
  switch (r->op) {
    case EL_DENSE: return r->params == (uint64_t)r->fan_in * r->stride + bias;
    case EL_BATCHNORM: return r->params == (uint64_t)r->units * 4;
    case EL_RESCALE: return r->params >= 2 && r->params % 2 == 0 && r->units % (r->params / 2) == 0;
    default: return r->params == 0;
  }
}

static int argument_fits(const el_record *r) {
  if (r->op == EL_DROPOUT) return r->arg[0] >= 0 && r->arg[0] < 1;
  if (r->op == EL_BATCHNORM) return r->arg[0] > 0 && r->arg[1] >= 0 && r->arg[1] < 1;
  return r->op >= EL_RESCALE && r->op <= EL_SOFTMAX;
}

static int shape_fits(const el_record *r, const el_record *before) {
  if (!r->active || r->active > r->units || r->units > r->stride) return 0;
  if (!r->fan_in_active || r->fan_in_active > r->fan_in) return 0;
  if (before && (r->fan_in != before->units || r->fan_in_active != before->active)) return 0;
  return r->op == EL_DENSE || (r->units == r->fan_in && r->active == r->fan_in_active);
}

static int place_fits(const el_record *records, uint32_t n, uint32_t i) {
  const el_record *r = records + i, *before = i ? r - 1 : NULL;
  if (r->input[0] != (int32_t)i - 1 || r->input[1] != -1) return 0;
  if (r->op == EL_RESCALE && i) return 0;
  if (r->op == EL_SOFTMAX && i + 1 != n) return 0;
  if (!before || before->op == EL_RESCALE) return r->block == 0 && (r->op == EL_DENSE || r->op == EL_RESCALE);
  if (r->op == EL_DROPOUT && before->op == EL_DROPOUT) return 0;
  return r->block == before->block + (r->op == EL_DENSE);
}

static el_status rule_check(const el_record *last, const el_config *c) {
  const el_rule *r = &c->rule;
  if (r->objective > EL_READOUT || r->codes > EL_CODES_HE_UNIFORM || r->loss > EL_HUBER) return EL_EINVAL;
  if (!r->group || r->targets != last->active || c->optimizer.kind > EL_ADAM) return EL_EINVAL;
  if (r->loss != EL_CROSS_ENTROPY && (r->objective == EL_TP_CE || last->op == EL_SOFTMAX)) return EL_EINVAL;
  return r->temperature > 0 && r->huber > 0 && r->scale > 0 ? EL_OK : EL_EINVAL;
}

el_status records_check(const el_record *records, uint32_t n, const el_config *config) {
  if (!records || !n || !config || !config->batch || !config->threads || config->threads > POOL_MAX) return EL_EINVAL;
  int dense = 0;
  for (uint32_t i = 0; i < n; i++) {
    const el_record *r = records + i;
    if (!argument_fits(r) || !params_fit(r) || !place_fits(records, n, i)) return EL_EINVAL;
    if (!shape_fits(r, i ? r - 1 : NULL)) return EL_EINVAL;
    if (is_elementwise(r->op) && r->flags) return EL_EINVAL;
    dense |= r->op == EL_DENSE;
  }
  if (!dense) return EL_EINVAL;
  return config->train ? rule_check(records + n - 1, config) : EL_OK;
}
