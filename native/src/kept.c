/* SPDX-License-Identifier: Apache-2.0 */
#include "kept.h"

#include <string.h>

/* Normalisations are kept with their running statistics, and what samples are rescaled by, which a fit may have set. */
static int is_whole(const el_record *r) { return r->op == EL_BATCHNORM || r->op == EL_RESCALE; }

static size_t kept_floats(const el_record *r) { return is_whole(r) ? r->params : trained_floats(r); }

void place_kept(const el_record *records, uint32_t n, arena *a, el_net *net) {
  size_t floats = 0;
  for (uint32_t i = 0; i < n; i++) floats += kept_floats(records + i);
  float *kept = arena_take(a, floats, sizeof *kept);
  if (net) net->kept = kept;
}

static float *exchange(float *kept, float *params, size_t floats, int back) {
  memcpy(back ? params : kept, back ? kept : params, floats * sizeof *kept);
  return kept + floats;
}

static float *exchange_part(float *kept, float *params, segment part, int back) {
  params += part.skip;
  for (size_t i = 0; i < part.runs.count; i++, params += part.runs.stored * part.ld) {
    for (size_t row = 0; row < part.runs.active; row++) {
      kept = exchange(kept, params + row * part.ld, part.cols, back);
    }
  }
  return kept;
}

/* At the widest that the net may be, whatever is in use. */
static el_status exchange_all(el_net *net, int back) {
  float *kept = net->kept;
  if (!kept) return EL_EINVAL;
  for (uint32_t i = 0; i < net->n_nodes; i++) {
    const node *at = net->nodes + i;
    float *params = record_params(net, at->record);
    if (is_whole(at->record)) {
      kept = exchange(kept, params, at->record->params, back);
      continue;
    }
    for (int p = 0; p < SEGMENTS; p++) kept = exchange_part(kept, params, at->widest[p], back);
  }
  return EL_OK;
}

el_status el_net_keep(el_net *net) { return exchange_all(net, 0); }

el_status el_net_revert(el_net *net) { return exchange_all(net, 1); }
