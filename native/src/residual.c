/* SPDX-License-Identifier: Apache-2.0 */
#include "residual.h"

int addition_fits(const el_record *records, uint32_t i) {
  const el_record *r = records + i;
  const int64_t from = r->input[1];
  if (r->op != EL_ADD) return from == -1;
  if (from < -1 || from + 1 >= (int64_t)i || records[from + 1].block != r->block) return 0;
  for (int64_t j = from + 1; j < (int64_t)i; j++) {
    if (records[j].op == EL_ADD || records[j].op == EL_RESCALE) return 0;
  }
  return features_in(records + from + 1) == features_out(r);
}

uint32_t addition_of(const el_record *records, uint32_t n, uint32_t i) {
  for (uint32_t j = i; j < n && records[j].block == records[i].block; j++) {
    if (records[j].op == EL_ADD) return records[j].input[1] + 1 == (int32_t)i ? j : 0;
  }
  return 0;
}

int passes_error(const el_record *records, uint32_t first, uint32_t i) {
  const int32_t from = records[i].input[1];
  return records[i].op == EL_ADD && from >= (int32_t)first && records[from].op != EL_RESCALE;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

size_t held_floats(const el_record *records, uint32_t n, size_t batch, size_t *widest) {
  size_t held = 0;
  *widest = 0;
  for (uint32_t i = 0; i < n; i++) {
    if (records[i].op != EL_ADD) continue;
    held = larger(held, lined(batch * features_out(records + i)));
    for (uint32_t j = (uint32_t)(records[i].input[1] + 1); j <= i; j++) {
      *widest = larger(*widest, lined(batch * larger(features_in(records + j), features_out(records + j))));
    }
  }
  return held;
}
