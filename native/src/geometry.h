/* SPDX-License-Identifier: Apache-2.0
 * Maps and windows of a record: sides, padding, numbers of features. Padding `same` is TensorFlow's. */
#ifndef EL_GEOMETRY_H
#define EL_GEOMETRY_H

#include <math.h>
#include <stddef.h>

#include "edgelearn.h"

typedef struct sides {
  uint32_t h, w;
} sides;

typedef struct window {
  uint32_t kh, kw, sh, sw;
  uint32_t top, left; /* padding in front */
} window;

static inline sides sides_in(const el_record *r) {
  return r->size ? (sides){r->size >> 16, r->size & 0xFFFFu} : (sides){1, 1};
}

static inline size_t positions(sides s) { return (size_t)s.h * s.w; }

/* Output side of a window; 0 where it does not fit. */
static inline uint32_t slide(uint32_t side, uint32_t kernel, uint32_t stride, int same) {
  if (!stride || !kernel) return 0;
  if (same) return (side + stride - 1) / stride;
  return side < kernel ? 0 : (side - kernel) / stride + 1;
}

static inline uint32_t pad_before(uint32_t side, uint32_t out, uint32_t kernel, uint32_t stride) {
  const uint32_t covered = (out - 1) * stride + kernel;
  return covered > side ? (covered - side) / 2 : 0;
}

static inline int is_windowed(uint32_t op) { return op == EL_CONV || op == EL_MAXPOOL || op == EL_AVGPOOL; }

static inline int is_recurrent(uint32_t op) { return op >= EL_SIMPLE_RNN && op <= EL_LSTM; }

static inline int is_product(uint32_t op) { return op == EL_DENSE || op == EL_CONV; }

/* What a block must have at least one of. */
static inline int is_weighty(uint32_t op) { return is_product(op) || is_recurrent(op) || op == EL_EMBEDDING; }

/* Products beside each other in the weights of a recurrent record. */
static inline uint32_t gates_of(uint32_t op) { return op == EL_LSTM ? 4 : op == EL_GRU ? 3 : 1; }

/* Rows in use of a recurrent record's parameters (rows, gates units): inputs, outputs before, biases. */
static inline size_t recurrent_rows(const el_record *r) {
  const size_t stored = r->params / ((size_t)gates_of(r->op) * r->units);
  return stored - (r->fan_in - r->fan_in_active) - (r->units - r->active);
}

/* Whether the error of an operation's input lies elsewhere than that of its output. */
static inline int moves_error(uint32_t op) {
  return op == EL_DENSE || op == EL_GLOBAL_AVGPOOL || op == EL_EMBEDDING || op == EL_ATTENTION || is_windowed(op) ||
         is_recurrent(op);
}

static inline sides sides_out(const el_record *r) {
  const sides in = sides_in(r);
  const int same = (r->flags & EL_FLAG_SAME) != 0;
  if (r->op == EL_GLOBAL_AVGPOOL || (is_recurrent(r->op) && !(r->flags & EL_FLAG_SEQUENCES))) return (sides){1, 1};
  if (!is_windowed(r->op)) return in;
  return (sides){slide(in.h, r->window >> 24, r->window >> 8 & 0xFF, same),
                 slide(in.w, r->window >> 16 & 0xFF, r->window & 0xFF, same)};
}

static inline window window_of(const el_record *r) {
  window v = {r->window >> 24, r->window >> 16 & 0xFF, r->window >> 8 & 0xFF, r->window & 0xFF, 0, 0};
  if (r->flags & EL_FLAG_SAME) {
    const sides in = sides_in(r), out = sides_out(r);
    v.top = pad_before(in.h, out.h, v.kh, v.sh);
    v.left = pad_before(in.w, out.w, v.kw, v.sw);
  }
  return v;
}

/* Groups of a convolution, heads of an attention. */
static inline uint32_t conv_groups(const el_record *r) { return r->flags >> 16 ? r->flags >> 16 : 1; }

/* Rows of a product's weights (inputs of one output, stride) that are in use: `count` times the first `active` of
 * `stored`, once for each tap of a kernel or each position of a map that is read as one vector. A table has a row for
 * each token. */
typedef struct row_runs {
  size_t count, stored, active;
} row_runs;

static inline row_runs runs_of(const el_record *r) {
  if (r->op == EL_EMBEDDING) return (row_runs){1, r->params / r->stride, r->params / r->stride};
  if (r->op != EL_CONV) {
    const size_t count = r->window ? r->window : 1;
    return (row_runs){count, r->fan_in / count, r->fan_in_active / count};
  }
  const window v = window_of(r);
  const size_t stored = r->fan_in / conv_groups(r);
  return (row_runs){(size_t)v.kh * v.kw, stored, conv_groups(r) > 1 ? stored : r->fan_in_active};
}

static inline size_t weight_rows(const el_record *r) {
  const row_runs runs = runs_of(r);
  return runs.count * runs.active;
}

/* Where the bias begins behind the weights. */
static inline size_t bias_at(const el_record *r) {
  const row_runs runs = runs_of(r);
  return runs.count * runs.stored * r->stride;
}

/* Whether a product has inputs that are not in use; where there are groups, all inputs of those in use are. */
static inline int is_cut(const el_record *r) {
  const row_runs runs = runs_of(r);
  return runs.active < runs.stored;
}

/* What a product is multiplied by. */
static inline float product_gain(const el_record *r) {
  const row_runs runs = runs_of(r);
  return r->flags & EL_FLAG_NESTED ? sqrtf((float)runs.stored / (float)runs.active) : 1;
}

/* The same of what a recurrent record makes of its output before. */
static inline float recurrent_gain(const el_record *r) {
  return r->flags & EL_FLAG_NESTED ? sqrtf((float)r->units / (float)r->active) : 1;
}

/* Values of one sample in front of and behind a record. */
static inline size_t features_in(const el_record *r) { return positions(sides_in(r)) * r->fan_in_active; }
static inline size_t features_out(const el_record *r) { return positions(sides_out(r)) * r->active; }

#endif
