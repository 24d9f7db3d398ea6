/* SPDX-License-Identifier: Apache-2.0 */
#include "samples.h"

#include <string.h>

void load_values(const el_net *net, float *y, const el_samples *s, uint64_t at, size_t n) {
  switch (s->x_type) {
    case EL_UINT8: net->k->from_u8(y, (const uint8_t *)s->x + at, n); break;
    case EL_FLOAT16: net->k->from_f16(y, (const uint16_t *)s->x + at, n); break;
    default: memcpy(y, (const float *)s->x + at, n * sizeof *y);
  }
}

int pairs_fit(const el_net *net, const el_samples *s) {
  return !s->pairs || (s->scale && s->shift && net->groups[s->group].in % s->pairs == 0);
}

void load_batch(const el_net *net, float *x, const el_samples *s, uint64_t first, const uint64_t *order,
                uint32_t batch) {
  const el_record *r = net->records;
  const size_t n = net->groups[s->group].in;
  const int rescaled = s->group == 0 && r->op == EL_RESCALE;
  const size_t pairs = rescaled ? r->params / 2 : s->pairs;
  const float *scale = rescaled ? record_params(net, r) : s->scale, *shift = rescaled ? scale + pairs : s->shift;
  for (uint32_t b = 0; b < batch; b++) {
    float *y = x + b * n;
    load_values(net, y, s, (order ? order[b] : first + b) * n, n);
    if (pairs) net->k->rescale(y, n, scale, shift, pairs);
  }
}
