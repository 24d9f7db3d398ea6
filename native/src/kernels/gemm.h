/* SPDX-License-Identifier: Apache-2.0
 * The matrix product, over vec.h. A tile of EL_ROWS x 2 vectors of C stays in registers (12 to 16 accumulators hide
 * the latency of the multiply-add on every core we know); panels of B are packed when rows reuse them. */
#ifndef EL_GEMM_H
#define EL_GEMM_H

#include "elementwise.h"
#include "kernels.h"

enum { PANEL = 2 * EL_LANES, WIDE = 8, DEPTH = GEMM_PACK / PANEL };

typedef struct tile_job {
  size_t k;
  const float *a;
  size_t a_row, a_col;
  const float *b;
  size_t ldb;
  float alpha, beta;
  float *c;
  size_t ldc;
  size_t tail; /* floats in the last vector */
} tile_job;

EL_INLINE vf tile_load(const float *p, size_t j, size_t vectors, int partial, size_t tail) {
  return partial && j + 1 == vectors ? v_load_part(p + j * EL_LANES, tail) : v_load(p + j * EL_LANES);
}

EL_INLINE void tile_store(float *p, vf sum, const tile_job *t, int partial) {
  vf y = v_mul(v_set(t->alpha), sum);
  if (t->beta != 0) {
    const vf old = partial ? v_load_part(p, t->tail) : v_load(p);
    y = v_fma(v_set(t->alpha), sum, t->beta == 1 ? old : v_mul(v_set(t->beta), old));
  }
  if (partial) {
    v_store_part(p, y, t->tail);
  } else {
    v_store(p, y);
  }
}

/* rows, vectors and partial are constants at every call, so that acc lives in registers */
EL_INLINE void tile(const size_t rows, const size_t vectors, const int partial, const tile_job *t) {
  vf acc[EL_ROWS][WIDE];
  EL_UNROLL
  for (size_t r = 0; r < rows; r++) {
    EL_UNROLL
    for (size_t j = 0; j < vectors; j++) acc[r][j] = v_set(0);
  }
  const float *b = t->b, *a = t->a;
  for (size_t p = 0; p < t->k; p++, b += t->ldb, a += t->a_col) {
    vf row[WIDE];
    EL_UNROLL
    for (size_t j = 0; j < vectors; j++) row[j] = tile_load(b, j, vectors, partial, t->tail);
    EL_UNROLL
    for (size_t r = 0; r < rows; r++) {
      const vf x = v_set(a[r * t->a_row]);
      EL_UNROLL
      for (size_t j = 0; j < vectors; j++) acc[r][j] = v_fma(x, row[j], acc[r][j]);
    }
  }
  EL_UNROLL
  for (size_t r = 0; r < rows; r++) {
    EL_UNROLL
    for (size_t j = 0; j < vectors; j++) {
      tile_store(t->c + r * t->ldc + j * EL_LANES, acc[r][j], t, partial && j + 1 == vectors);
    }
  }
}

EL_INLINE void tile_rows(size_t rows, const size_t vectors, const int partial, const tile_job *t) {
  switch (rows) {
    case 1: tile(1, vectors, partial, t); break;
    case 2: tile(2, vectors, partial, t); break;
    case 3: tile(3, vectors, partial, t); break;
    case 4: tile(4, vectors, partial, t); break;
#if EL_ROWS > 4
    case 5: tile(5, vectors, partial, t); break;
    case 6: tile(6, vectors, partial, t); break;
#endif
#if EL_ROWS > 6
    case 7: tile(7, vectors, partial, t); break;
    case 8: tile(8, vectors, partial, t); break;
#endif
    default: break;
  }
}

static void tile_any(size_t rows, size_t cols, tile_job *t) {
  t->tail = cols % EL_LANES;
  if (cols > EL_LANES) {
    if (t->tail) {
      tile_rows(rows, 2, 1, t);
    } else {
      tile_rows(rows, 2, 0, t);
    }
  } else if (t->tail) {
    tile_rows(rows, 1, 1, t);
  } else {
    tile_rows(rows, 1, 0, t);
  }
}

/* One row: a wide strip of C in registers, B read once and in order. */
static void gemm_row(const gemm_job *g, size_t p0, size_t depth, float beta) {
  tile_job t = {
      .k = depth, .a = g->a + p0 * g->a_col, .a_col = g->a_col, .ldb = g->b_row, .alpha = g->alpha, .beta = beta};
  size_t j = 0;
  for (; j + (size_t)WIDE * EL_LANES <= g->n; j += (size_t)WIDE * EL_LANES) {
    t.b = g->b + p0 * g->b_row + j;
    t.c = g->c + j;
    tile(1, WIDE, 0, &t);
  }
  for (; j < g->n; j += PANEL) {
    t.b = g->b + p0 * g->b_row + j;
    t.c = g->c + j;
    tile_any(1, g->n - j < PANEL ? g->n - j : PANEL, &t);
  }
}

/* C += a b^T, one outer product: whole rows of C in order, rows that a zero leaves as they are untouched. Per
 * element the same operations as in a tile. */
static void gemm_outer(const gemm_job *g) {
  const vf alpha = v_set(g->alpha);
  for (size_t i = 0; i < g->m; i++) {
    const float factor = g->a[i * g->a_row];
    float *c = g->c + i * g->ldc;
    if (factor == 0) continue;
    const vf x = v_set(factor);
    size_t j = 0;
    for (; j + EL_LANES <= g->n; j += EL_LANES) {
      v_store(c + j, v_fma(alpha, v_mul(x, v_load(g->b + j)), v_load(c + j)));
    }
    const size_t rest = g->n - j;
    if (!rest) continue;
    v_store_part(c + j, v_fma(alpha, v_mul(x, v_load_part(g->b + j, rest)), v_load_part(c + j, rest)), rest);
  }
}

static void pack_panel(const gemm_job *g, size_t p0, size_t depth, size_t j0, size_t cols, float *pack) {
  for (size_t p = 0; p < depth; p++) {
    const float *from = g->b + (p0 + p) * g->b_row + j0 * g->b_col;
    for (size_t j = 0; j < cols; j++) pack[p * PANEL + j] = from[j * g->b_col];
  }
}

static void gemm_panel(const gemm_job *g, size_t p0, size_t depth, size_t j0, float beta, float *pack) {
  const size_t cols = g->n - j0 < PANEL ? g->n - j0 : PANEL;
  tile_job t = {.k = depth, .a_row = g->a_row, .a_col = g->a_col, .alpha = g->alpha, .beta = beta, .ldc = g->ldc};
  t.b = g->b + p0 * g->b_row + j0;
  t.ldb = g->b_row;
  if (g->b_col != 1 || g->m > (size_t)2 * EL_ROWS) {
    pack_panel(g, p0, depth, j0, cols, pack);
    t.b = pack;
    t.ldb = PANEL;
  }
  const size_t strips = (g->m + EL_ROWS - 1) / EL_ROWS;
  for (size_t s = 0; s < strips; s++) {
    const size_t i = s * g->m / strips, end = (s + 1) * g->m / strips;
    t.a = g->a + i * g->a_row + p0 * g->a_col;
    t.c = g->c + i * g->ldc + j0;
    tile_any(end - i, cols, &t);
  }
}

static void k_gemm(const gemm_job *g, float *pack) {
  if (g->k == 1 && g->beta == 1 && g->b_col == 1) {
    gemm_outer(g);
    return;
  }
  for (size_t p = 0; p < g->k; p += DEPTH) {
    const size_t depth = g->k - p < DEPTH ? g->k - p : DEPTH;
    const float beta = p ? 1.0f : g->beta;
    if (g->m == 1 && g->b_col == 1) {
      gemm_row(g, p, depth, beta);
      continue;
    }
    for (size_t j = 0; j < g->n; j += PANEL) gemm_panel(g, p, depth, j, beta, pack);
  }
}

#endif
