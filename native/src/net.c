/* SPDX-License-Identifier: Apache-2.0
 * Placing, inference and one local step. */
#include <math.h>
#include <string.h>

#include "embedding.h"
#include "layers.h"
#include "learn.h"
#include "residual.h"
#include "samples.h"
#include "sequence.h"
#include "walk.h"

const char *el_status_text(el_status status) {
  switch (status) {
    case EL_OK: return "done";
    case EL_EINVAL: return "an argument or record that the core does not accept";
    case EL_ENOMEM: return "the memory given is smaller than the plan asks for";
    case EL_ENONFINITE: return "a sample, target, loss or gradient is NaN or infinite";
    case EL_EFORMAT: return "not a model file of this version";
    case EL_ELABEL: return "a label is outside the classes of the net";
    case EL_ETHREAD: return "a thread could not be started";
    case EL_EBATCH: return "batch normalisation cannot learn from one sample";
    case EL_ETOKEN: return "a token is no whole number of the vocabulary";
    case EL_ESTEPS: return "a sequence is padding alone";
  }
  return "unknown status";
}

el_status el_net_size(const el_record *records, uint32_t n_records, const el_config *config, el_sizes *sizes) {
  if (!sizes) return EL_EINVAL;
  const el_status status = records_check(records, n_records, config);
  if (status) return status;
  arena measure = {0};
  void *pool_memory;
  *sizes = (el_sizes){0};
  walk(records, n_records, config, &measure, sizes, &pool_memory);
  return measure.failed ? EL_EINVAL : EL_OK;
}

static int params_inside(const el_record *records, uint32_t n, uint64_t n_params) {
  for (uint32_t i = 0; i < n; i++) {
    if ((uint64_t)records[i].offset + records[i].params > n_params) return 0;
  }
  return 1;
}

el_status el_net_init(el_net **out, void *mem, size_t size, const el_record *records, uint32_t n_records, float *params,
                      uint64_t n_params, const el_config *config) {
  if (!out || !mem || !params || (uintptr_t)mem % 64) return EL_EINVAL;
  *out = NULL;
  const el_status status = records_check(records, n_records, config);
  if (status) return status;
  const kernel_table *kernels = kernels_for(config->isa);
  if (!kernels || !params_inside(records, n_records, n_params)) return EL_EINVAL;
  arena a = {.base = mem, .size = size};
  el_sizes sizes;
  void *pool_memory = NULL;
  el_net *net = walk(records, n_records, config, &a, &sizes, &pool_memory);
  if (!net) return EL_ENOMEM;
  net->k = kernels;
  net->params = params;
  if (config->threads > 1 && pool_start(&net->pool, pool_memory, config->threads)) return EL_ETHREAD;
  *out = net;
  return EL_OK;
}

void el_net_close(el_net *net) {
  if (!net) return;
  pool_stop(net->pool);
  net->pool = NULL;
}

uint64_t el_net_features(const el_net *net, uint32_t at) {
  return at < net->n_groups ? net->groups[at].in : features_out(net->records + net->n_nodes - 1);
}

uint32_t el_net_groups(const el_net *net) { return net->n_groups; }

void *el_net_state(el_net *net, uint64_t *bytes) {
  *bytes = net->state_bytes;
  return net->state;
}

/* Back and forth between the ends of the region; sequences of the feed are in neither. */
float *net_infer(const el_net *net, uint32_t first, uint32_t last, float *x, uint32_t batch) {
  float *low = net->region, *high = net->region + net->region_floats;
  for (uint32_t i = first; i <= last; i++) {
    const el_record *r = net->records + i;
    float *y = x;
    if (is_in_section(net, i)) {
      const uint32_t end = net->sequence->at.last < last ? net->sequence->at.last : last;
      y = x == low ? high - lined(batch * features_out(net->records + end)) : low;
      sequence_infer(net, y, i, end, x, batch);
      i = end;
      x = y;
      continue;
    }
    if (moves_error(r->op)) y = x == low ? high - lined(batch * features_out(r)) : low;
    if (addition_of(net->records, net->n_nodes, i)) memcpy(net->held, x, batch * features_in(r) * sizeof *x);
    layer_infer(net, y, r, x, batch);
    if (r->op == EL_ADD) net->k->axpy(y, 1, net->held, batch * features_out(r));
    x = y;
  }
  return x;
}

void outputs_of(const el_net *net, float *out, uint32_t first, uint32_t last, float *x, uint32_t batch) {
  if (is_in_section(net, last)) {
    const uint32_t from = net->sequence->at.first > first ? net->sequence->at.first : first;
    if (from > first) x = net_infer(net, first, from - 1, x, batch);
    sequence_infer(net, out, from, last, x, batch);
    return;
  }
  const float *y = net_infer(net, first, last, x, batch);
  memcpy(out, y, batch * features_out(net->records + last) * sizeof *out);
}

el_status take_batch(el_net *net, float *x, const el_samples *s, uint64_t first, const uint64_t *order,
                     uint32_t batch) {
  const group *g = net->groups + s->group;
  net->feed = (feed){0};
  if (g->stepped) {
    net->feed = (feed){.samples = s, .order = order, .first = first, .steps = net->sequence->steps};
    return feed_is_finite(net, batch) ? feed_align(net, batch) : EL_ENONFINITE;
  }
  load_batch(net, x, s, first, order, batch);
  if (!net->k->finite(x, batch * g->in)) return EL_ENONFINITE;
  return !s->group && tokens_check(net, x, batch) ? EL_ETOKEN : EL_OK;
}

el_status el_net_outputs(el_net *net, const el_samples *s, uint32_t last, float *out) {
  if (!net || !s || !s->x || !out || last >= net->n_groups || s->group > last || !pairs_fit(net, s)) return EL_EINVAL;
  const group *first = net->groups + s->group, *g = net->groups + last;
  const size_t units = features_out(net->records + g->end);
  for (uint64_t i = 0; i < s->n; i += net->config.batch) {
    const uint32_t batch = s->n - i < net->config.batch ? (uint32_t)(s->n - i) : net->config.batch;
    const el_status status = take_batch(net, net->region, s, i, NULL, batch);
    if (status) return status;
    outputs_of(net, out + i * units, first->first, g->end, first->stepped ? NULL : net->region, batch);
  }
  return EL_OK;
}

el_status el_net_forward(el_net *net, const el_samples *s, float *out) {
  return net ? el_net_outputs(net, s, net->n_groups - 1, out) : EL_EINVAL;
}
