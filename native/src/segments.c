/* SPDX-License-Identifier: Apache-2.0 */
#include "segments.h"

int has_weights(const el_record *r) { return r->op != EL_RESCALE && r->params; }

size_t segment_floats(segment part) { return part.runs.count * part.runs.active * part.cols; }

/* W, V and the biases of a recurrent record, each gate of a row as a row of its own. */
static void recurrent_segments(const el_record *r, segment out[SEGMENTS]) {
  const size_t gates = gates_of(r->op), u = r->units, w = r->fan_in * gates, v = u * gates;
  const size_t biases = r->params / u - w - v;
  out[0] = (segment){0, {1, w, r->fan_in_active * gates}, r->active, u};
  out[1] = (segment){w * u, {1, v, r->active * gates}, r->active, u};
  out[2] = (segment){(w + v) * u, {biases > 0, biases, biases}, r->active, u};
}

static void table_segment(const el_record *r, segment out[SEGMENTS]) {
  const row_runs one = {1, 1, 1};
  out[0] = r->op == EL_EMBEDDING ? (segment){0, runs_of(r), r->active, r->stride}
                                 : (segment){0, one, features_out(r), r->params};
}

/* The matrix and the bias of a product, or gain and shift of a normalisation. */
static void pair_segments(const el_record *r, segment out[SEGMENTS]) {
  const row_runs one = {1, 1, 1};
  const int product = is_product(r->op);
  const size_t second = !product || (r->flags & EL_FLAG_BIAS);
  out[0] = (segment){0, product ? runs_of(r) : one, r->active, product ? r->stride : r->units};
  out[1] = (segment){product ? bias_at(r) : r->units, {second, 1, 1}, r->active, r->active};
}

void segments_of(const el_record *r, segment out[SEGMENTS]) {
  for (int p = 0; p < SEGMENTS; p++) out[p] = (segment){.skip = r->params, .runs = {0, 1, 1}};
  if (!has_weights(r)) return;
  if (r->op == EL_EMBEDDING || r->op == EL_POSITIONS) {
    table_segment(r, out);
  } else if (is_recurrent(r->op)) {
    recurrent_segments(r, out);
  } else {
    pair_segments(r, out);
  }
}

size_t trained_floats(const el_record *r) {
  segment part[SEGMENTS];
  size_t floats = 0;
  segments_of(r, part);
  for (int p = 0; p < SEGMENTS; p++) floats += segment_floats(part[p]);
  return floats;
}

size_t packed_row(segment part, size_t row) {
  return (row / part.runs.stored * part.runs.active + row % part.runs.stored) * part.cols;
}
