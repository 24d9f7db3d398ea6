/* SPDX-License-Identifier: Apache-2.0
 * Kernels over the columns of a matrix: sums, products, normalisation. Sums run in strips of four vectors, whose
 * accumulators stay in registers, and in runs of RUN rows, so that rounding grows with the runs and not the rows. */
#ifndef EL_COLUMNS_H
#define EL_COLUMNS_H

#include "elementwise.h"
#include "kernels.h"

enum { RUN = 128, STRIP = 4 * EL_LANES };

/* out += sum over rows of `term`, strip by strip: whole cache lines are read, in order. */
#define EL_COLUMN_SUM(out, rows, cols, term)                                                                           \
  for (size_t at = 0; at < (cols); at += STRIP) {                                                                      \
    if (at + STRIP <= (cols)) {                                                                                        \
      for (size_t r0 = 0; r0 < (rows); r0 += RUN) {                                                                    \
        const size_t end = r0 + RUN < (rows) ? r0 + RUN : (rows);                                                      \
        vf sum[4] = {v_set(0), v_set(0), v_set(0), v_set(0)};                                                          \
        for (size_t r = r0; r < end; r++) {                                                                            \
          EL_UNROLL                                                                                                    \
          for (size_t j = 0; j < 4; j++) sum[j] = term(sum[j], r, at + j * EL_LANES, EL_LANES);                        \
        }                                                                                                              \
        for (size_t j = 0; j < 4; j++) {                                                                               \
          float *to = (out) + at + j * EL_LANES;                                                                       \
          v_store(to, v_add(v_load(to), sum[j]));                                                                      \
        }                                                                                                              \
      }                                                                                                                \
      continue;                                                                                                        \
    }                                                                                                                  \
    for (size_t i = at; i < (cols); i += EL_LANES) {                                                                   \
      const size_t m = (cols) - i < EL_LANES ? (cols) - i : EL_LANES;                                                  \
      for (size_t r0 = 0; r0 < (rows); r0 += RUN) {                                                                    \
        const size_t end = r0 + RUN < (rows) ? r0 + RUN : (rows);                                                      \
        vf sum = v_set(0);                                                                                             \
        for (size_t r = r0; r < end; r++) sum = term(sum, r, i, m);                                                    \
        put(out, i, m, v_add(part(out, i, m), sum));                                                                   \
      }                                                                                                                \
    }                                                                                                                  \
  }

EL_INLINE vf square_add(vf x, vf mean, vf sum) {
  const vf v = v_sub(x, mean);
  return v_fma(v, v, sum);
}

EL_INLINE void put(float *p, size_t i, size_t n, vf v) {
  if (n == EL_LANES) {
    v_store(p + i, v);
  } else {
    v_store_part(p + i, v, n);
  }
}

static float k_dot(const float *x, const float *y, size_t n) {
  vf sum = v_set(0);
  size_t i = 0;
  for (; i + EL_LANES <= n; i += EL_LANES) sum = v_fma(v_load(x + i), v_load(y + i), sum);
  if (i < n) sum = v_fma(v_load_part(x + i, n - i), v_load_part(y + i, n - i), sum);
  return v_total(sum);
}

static void k_column_sum(float *out, const float *x, size_t rows, size_t cols) {
  memset(out, 0, cols * sizeof *out);
#define TERM(sum, r, i, m) v_add(sum, part(x + (r) * cols, i, m))
  EL_COLUMN_SUM(out, rows, cols, TERM)
#undef TERM
}

static void k_column_square(float *out, const float *x, const float *mean, size_t rows, size_t cols) {
  memset(out, 0, cols * sizeof *out);
#define TERM(sum, r, i, m) square_add(part(x + (r) * cols, i, m), part(mean, i, m), sum)
  EL_COLUMN_SUM(out, rows, cols, TERM)
#undef TERM
}

static void k_column_dot(float *out, const float *x, size_t x_row, const float *y, size_t y_row, size_t rows,
                         size_t cols) {
#define TERM(sum, r, i, m) v_fma(part(x + (r) * x_row, i, m), part(y + (r) * y_row, i, m), sum)
  EL_COLUMN_SUM(out, rows, cols, TERM)
#undef TERM
}

static void k_column_madd(float *y, size_t y_row, const float *x, size_t x_row, const float *a, size_t rows,
                          size_t cols) {
  for (size_t r = 0; r < rows; r++) {
    const float *from = x + r * x_row;
    float *to = y + r * y_row;
#define ONE(v, i, m) v_fma(part(from, i, m), part(a, i, m), v)
    EL_EACH(to, cols, ONE);
#undef ONE
  }
}

static void k_normalise(float *y, float *xhat, const float *x, const affine_rows *a, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++) {
    for (size_t i = 0; i < cols; i += EL_LANES) {
      const size_t m = cols - i < EL_LANES ? cols - i : EL_LANES;
      const vf v = v_mul(v_sub(part(x + r * cols, i, m), part(a->mean, i, m)), part(a->inverse, i, m));
      put(xhat + r * cols, i, m, v);
      put(y + r * cols, i, m, v_fma(v, part(a->gamma, i, m), part(a->beta, i, m)));
    }
  }
}

/* d = gain (d - sum/B - xhat dot/B) */
static void k_batchnorm_back(float *d, const float *xhat, const float *gain, const float *sum, const float *dot,
                             size_t rows, size_t cols) {
  const vf share = v_set(-1.0f / (float)rows);
  for (size_t r = 0; r < rows; r++) {
    const float *x = xhat + r * cols;
    float *y = d + r * cols;
#define ONE(v, i, m) v_mul(part(gain, i, m), v_fma(share, v_fma(part(x, i, m), part(dot, i, m), part(sum, i, m)), v))
    EL_EACH(y, cols, ONE);
#undef ONE
  }
}

static float k_layernorm(float *y, float *xhat, const float *x, const affine_rows *a, size_t n, float epsilon) {
  vf sum = v_set(0), square = v_set(0);
  for (size_t i = 0; i < n; i += EL_LANES) sum = v_add(sum, part(x, i, n - i < EL_LANES ? n - i : EL_LANES));
  const float mean = v_total(sum) / (float)n;
  for (size_t i = 0; i < n; i++) xhat[i] = x[i] - mean;
  for (size_t i = 0; i < n; i += EL_LANES) {
    const vf v = part(xhat, i, n - i < EL_LANES ? n - i : EL_LANES);
    square = v_fma(v, v, square);
  }
  const float inverse = 1 / sqrtf(v_total(square) / (float)n + epsilon);
  const vf scale = v_set(inverse);
  for (size_t i = 0; i < n; i += EL_LANES) {
    const size_t m = n - i < EL_LANES ? n - i : EL_LANES;
    const vf v = v_mul(part(xhat, i, m), scale);
    put(xhat, i, m, v);
    put(y, i, m, v_fma(v, part(a->gamma, i, m), part(a->beta, i, m)));
  }
  return inverse;
}

/* With e = d gamma: d = inverse (e - mean(e) - xhat mean(e xhat)). */
static void k_layernorm_back(float *d, const float *xhat, const float *gamma, float inverse, size_t n) {
  vf sum = v_set(0), dot = v_set(0);
#define ONE(v, i, m) (v = v_mul(v, part(gamma, i, m)), sum = v_add(sum, v), dot = v_fma(v, part(xhat, i, m), dot), v)
  EL_EACH(d, n, ONE);
#undef ONE
  const vf mean = v_set(v_total(sum) / (float)n), tilt = v_set(v_total(dot) / (float)n), scale = v_set(inverse);
#define ONE(v, i, m) v_mul(scale, v_sub(v_sub(v, mean), v_mul(part(xhat, i, m), tilt)))
  EL_EACH(d, n, ONE);
#undef ONE
}

#endif
