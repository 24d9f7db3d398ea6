/* SPDX-License-Identifier: Apache-2.0
 * Kernels over rows, columns and matrices, as test_kernels.c tests those of vectors. */
#include "kernel_check.h"

enum { ROWS = 131 }; /* more than one run of rows */
static float x[ROWS * MOST], z[ROWS * MOST], out[ROWS * MOST], hat[ROWS * MOST];

static void test_column_sums(size_t cols) {
  fill(x, ROWS * cols, 2), fill(z, ROWS * cols, 2), fresh();
  float sum[MOST], dot[MOST], square[MOST];
  memcpy(dot, a, sizeof dot);
  k->column_sum(sum, x, ROWS, cols);
  k->column_dot(dot, x, cols, z, cols, ROWS, cols);
  k->column_square(square, x, b, ROWS, cols);
  for (size_t j = 0; j < cols; j++) {
    double s = 0, d = a[j], q = 0;
    for (size_t r = 0; r < ROWS; r++) {
      s += x[r * cols + j], d += (double)x[r * cols + j] * z[r * cols + j];
      q += pow((double)x[r * cols + j] - b[j], 2);
    }
    near("column_sum", cols, j, sum[j], s, 1e-5);
    near("column_dot", cols, j, dot[j], d, 1e-5);
    near("column_square", cols, j, square[j], q, 1e-5);
  }
  double whole = 0;
  for (size_t i = 0; i < cols; i++) whole += (double)x[i] * z[i];
  near("dot", cols, 0, k->dot(x, z, cols), whole, 1e-5);
}

/* Every second row of x into every third of out. */
static void test_column_madd(size_t cols) {
  const size_t few = 4;
  fill(x, 2 * few * cols, 2), fill(z, 3 * few * cols, 2), fresh();
  memcpy(out, z, 3 * few * cols * sizeof *out);
  k->column_madd(out, 3 * cols, x, 2 * cols, a, few, cols);
  for (size_t i = 0; i < 3 * few * cols; i++) {
    const size_t r = i / cols, j = i % cols;
    const double more = r % 3 ? 0 : (double)x[r / 3 * 2 * cols + j] * a[j];
    near("column_madd", cols, i, out[i], z[i] + more, 1e-6);
  }
}

static void test_normalisation(size_t cols) {
  fill(x, ROWS * cols, 2), fresh();
  const affine_rows affine = {.mean = a, .inverse = b, .gamma = c, .beta = y};
  k->normalise(out, hat, x, &affine, ROWS, cols);
  for (size_t i = 0; i < ROWS * cols; i++) {
    const size_t j = i % cols;
    const double want = ((double)x[i] - a[j]) * b[j];
    near("normalise", cols, i, hat[i], want, 1e-6);
    near("normalise", cols, i, out[i], want * c[j] + y[j], 2e-6);
  }
  fill(z, ROWS * cols, 2);
  memcpy(out, x, ROWS * cols * sizeof *out);
  k->batchnorm_back(out, z, a, b, c, ROWS, cols);
  for (size_t i = 0; i < ROWS * cols; i++) {
    const size_t j = i % cols;
    near("batchnorm_back", cols, i, out[i], a[j] * ((double)x[i] - (b[j] + (double)z[i] * c[j]) / ROWS), 1e-5);
  }
}

static void test_layernorm(size_t n) {
  fresh();
  const affine_rows affine = {.gamma = b, .beta = c};
  double mean = 0, square = 0, sum = 0, dot = 0;
  for (size_t i = 0; i < n; i++) mean += (double)a[i] / (double)n;
  for (size_t i = 0; i < n; i++) square += pow(a[i] - mean, 2) / (double)n;
  const double inverse = 1 / sqrt(square + (double)0.01f);
  near("layernorm", n, 0, k->layernorm(out, hat, a, &affine, n, 0.01f), inverse, 2e-6);
  for (size_t i = 0; i < n; i++) {
    near("layernorm", n, i, hat[i], (a[i] - mean) * inverse, 5e-6);
    near("layernorm", n, i, out[i], (a[i] - mean) * inverse * b[i] + c[i], 1e-5);
    sum += (double)y[i] * b[i] / (double)n, dot += (double)y[i] * b[i] * hat[i] / (double)n;
  }
  k->layernorm_back(y, hat, b, 0.7f, n);
  for (size_t i = 0; i < n; i++) {
    near("layernorm_back", n, i, y[i], (double)0.7f * ((double)was[i] * b[i] - sum - hat[i] * dot), 5e-6);
  }
}

/* Values on a coarse grid, so that equals occur. */
static void test_maxima(size_t n) {
  fresh();
  for (size_t i = 0; i <= MOST; i++) a[i] = roundf(a[i]), y[i] = was[i] = roundf(y[i]);
  k->max_into(y, a, n);
  for (size_t i = 0; i < n; i++) near("max_into", n, i, y[i], was[i] > a[i] ? was[i] : a[i], 0);
  CHECK(y[n] == was[n], "%s max_into n=%zu wrote past its end", isa, n);
  float dx[MOST + 1], left[MOST + 1];
  memcpy(dx, b, sizeof dx), memcpy(left, c, sizeof left);
  k->max_back(dx, left, a, y, n);
  for (size_t i = 0; i < n; i++) {
    near("max_back", n, i, dx[i], a[i] == y[i] ? b[i] + c[i] : b[i], 1e-6);
    near("max_back", n, i, left[i], a[i] == y[i] ? 0 : c[i], 0);
  }
}

static double product(const gemm_job *g, const float *old, size_t i, size_t j, double *size) {
  double sum = 0;
  *size = 0;
  for (size_t p = 0; p < g->k; p++) {
    const double term = (double)g->a[i * g->a_row + p * g->a_col] * g->b[p * g->b_row + j * g->b_col];
    sum += term, *size += fabs(term);
  }
  return g->alpha * sum + (g->beta != 0 ? g->beta * (double)old[i * g->ldc + j] : 0);
}

static void test_gemm_case(size_t m, size_t n, size_t depth, int ta, int tb, float beta) {
  static float old[1 << 16], pack[GEMM_PACK];
  const size_t ldc = n + 3;
  fill(x, m * depth, 1), fill(z, n * depth, 1), fill(old, m * ldc, 1);
  memcpy(out, old, m * ldc * sizeof *out);
  const gemm_job g = {.m = m,
                      .n = n,
                      .k = depth,
                      .alpha = 0.5f,
                      .a = x,
                      .a_row = ta ? 1 : depth,
                      .a_col = ta ? m : 1,
                      .b = z,
                      .b_row = tb ? 1 : n,
                      .b_col = tb ? depth : 1,
                      .beta = beta,
                      .c = out,
                      .ldc = ldc};
  k->gemm(&g, pack);
  for (size_t i = 0; i < m; i++) {
    for (size_t j = 0; j < ldc; j++) {
      const float got = out[i * ldc + j], before = old[i * ldc + j];
      if (j >= n) {
        CHECK(got == before, "%s gemm wrote past column %zu", isa, n);
        continue;
      }
      double size;
      const double want = product(&g, old, i, j, &size);
      CHECK(fabs(got - want) <= 16 * 1.2e-7 * (size + fabs((double)beta * before)),
            "%s gemm %zux%zux%zu at %zu,%zu: %g, not %g", isa, m, n, depth, i, j, (double)got, want);
    }
  }
}

static void test_gemm(void) {
  static const size_t m[] = {1, 2, 5, 6, 7, 8, 13, 17}, n[] = {1, 3, 10, 16, 17, 33, 130}, depth[] = {1, 4, 31, 300};
  for (size_t i = 0; i < sizeof m / sizeof *m; i++) {
    for (size_t j = 0; j < sizeof n / sizeof *n; j++) {
      for (size_t p = 0; p < sizeof depth / sizeof *depth; p++) {
        for (int t = 0; t < 4; t++) test_gemm_case(m[i], n[j], depth[p], t & 1, t >> 1, (float)(p % 3) * 0.5f);
      }
    }
  }
}

static void test_isa(uint32_t number) {
  (void)number;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const size_t n = sizes[i];
    test_column_sums(n), test_column_madd(n), test_normalisation(n), test_layernorm(n), test_maxima(n);
  }
  test_gemm();
}

int main(void) { return on_every_set(test_isa); }
