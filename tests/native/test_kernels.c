/* SPDX-License-Identifier: Apache-2.0
 * Every kernel of kernels.def, on every instruction set that runs here, at awkward sizes and odd addresses, against
 * plain double arithmetic. The list below is checked against kernels.def, so that no kernel goes untested. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "edgelearn.h"
#include "kernels.h"
#include "philox.h"

enum { MOST = 300 };
static const size_t sizes[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 257};
static const kernel_table *k;
static const char *isa;
static float a[MOST + 1], b[MOST + 1], c[MOST + 1], y[MOST + 1], was[MOST + 1];

static double random_unit(void) {
  static uint32_t at;
  return philox(7, at++, 0, 0, 9).w[0] * 0x1p-31 - 1;
}

static void fill(float *x, size_t n, double scale) {
  for (size_t i = 0; i < n; i++) x[i] = (float)(random_unit() * scale);
}

static void fresh(void) {
  fill(a, MOST + 1, 2), fill(b, MOST + 1, 2), fill(c, MOST + 1, 2), fill(y, MOST + 1, 2);
  memcpy(was, y, sizeof y);
}

static void near(const char *kernel, size_t n, size_t i, double got, double want, double bound) {
  CHECK(fabs(got - want) <= bound * (1 + fabs(want)), "%s %s n=%zu i=%zu: %.9g, not %.9g", isa, kernel, n, i, got,
        want);
}

/* Runs `call` on y + 1 (an odd address), then compares each y[i] with `want`, and that nothing past n was touched. */
#define IN_PLACE(name, n, call, want, bound)                                                                           \
  do {                                                                                                                 \
    fresh();                                                                                                           \
    float *v = y + 1;                                                                                                  \
    const float *w = was + 1;                                                                                          \
    call;                                                                                                              \
    for (size_t i = 0; i < (n); i++) near(#name, n, i, v[i], want, bound);                                             \
    CHECK((n) == MOST || v[n] == w[n], "%s " #name " n=%zu wrote past its end", isa, (size_t)(n));                     \
  } while (0)

static double sign(double x) { return (x > 0) - (x < 0); }
static double clip(double x, double d) { return x > d ? d : x < -d ? -d : x; }

static double gelu_gate(double x) {
  return (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))) / 2;
}
static double gelu_slope(double x) {
  const double h = 1e-5;
  return ((x + h) * gelu_gate(x + h) - (x - h) * gelu_gate(x - h)) / (2 * h);
}

static void test_activations(size_t n) {
  IN_PLACE(relu, n, k->relu(v, n), w[i] > 0 ? w[i] : 0, 0);
  IN_PLACE(leaky_relu, n, k->leaky_relu(v, n, 0.1f), w[i] > 0 ? w[i] : 0.1f * w[i], 1e-7);
  IN_PLACE(tanh, n, k->tanh(v, n), tanh((double)w[i]), 3e-7);
  IN_PLACE(sigmoid, n, k->sigmoid(v, n), 1 / (1 + exp(-(double)w[i])), 3e-7);
  IN_PLACE(relu_back, n, k->relu_back(v, a, n), a[i] > 0 ? w[i] : 0, 0);
  IN_PLACE(leaky_relu_back, n, k->leaky_relu_back(v, a, n, 0.1f), a[i] > 0 ? w[i] : 0.1f * w[i], 1e-7);
  IN_PLACE(tanh_back, n, k->tanh_back(v, a, n), w[i] * (1 - (double)a[i] * a[i]), 1e-6);
  IN_PLACE(sigmoid_back, n, k->sigmoid_back(v, a, n), w[i] * a[i] * (1 - (double)a[i]), 1e-6);
  IN_PLACE(gelu, n, k->gelu(v, n), w[i] * gelu_gate(w[i]), 1e-6);
  IN_PLACE(gelu_back, n, k->gelu_back(v, a, n), w[i] * gelu_slope(a[i]), 1e-6);
}

static void test_losses(size_t n) {
  double l2 = 0, l1 = 0, huber = 0, linear = 0;
  float got = 0;
  IN_PLACE(l2, n, got = k->l2(v, a, n), (double)a[i] - w[i], 1e-6);
  for (size_t i = 0; i < n; i++) l2 += 0.5 * pow((double)a[i] - was[i + 1], 2);
  near("l2", n, 0, got, l2, 1e-5);
  IN_PLACE(l1, n, got = k->l1(v, a, n), sign((double)a[i] - w[i]), 0);
  for (size_t i = 0; i < n; i++) l1 += fabs((double)a[i] - was[i + 1]);
  near("l1", n, 0, got, l1, 1e-5);
  IN_PLACE(huber, n, got = k->huber(v, a, n, 0.7f), clip((double)a[i] - w[i], 0.7f), 1e-6);
  for (size_t i = 0; i < n; i++) {
    const double e = (double)a[i] - was[i + 1], x = clip(e, 0.7f);
    huber += x * (e - x / 2);
  }
  near("huber", n, 0, got, huber, 1e-5);
  IN_PLACE(linear, n, got = k->linear(v, a, n), -w[i], 0);
  for (size_t i = 0; i < n; i++) linear -= (double)a[i] * was[i + 1];
  near("linear", n, 0, got, linear, 5e-5);
}

static void test_vectors(size_t n) {
  IN_PLACE(axpy, n, k->axpy(v, 0.3f, a, n), w[i] + (double)0.3f * a[i], 1e-6);
  IN_PLACE(scale, n, k->scale(v, 0.3f, n), (double)0.3f * w[i], 1e-6);
  IN_PLACE(rescale, n, k->rescale(v, n, a, b, 1), (double)w[i] * a[0] + b[0], 1e-6);
  IN_PLACE(rescale, n, k->rescale(v, n, a, b, n), (double)w[i] * a[i] + b[i], 1e-6);
  if (n % 3 == 0) IN_PLACE(rescale, n, k->rescale(v, n, a, b, 3), (double)w[i] * a[i % 3] + b[i % 3], 1e-6);
  uint8_t bytes[MOST + 1];
  for (size_t i = 0; i <= MOST; i++) bytes[i] = (uint8_t)(i * 37);
  IN_PLACE(from_u8, n, k->from_u8(v, bytes + 1, n), bytes[i + 1], 0);
  fresh();
  memcpy(c, b, sizeof c);
  k->momentum(y, a, b, n, 0.1f, 0.9f);
  for (size_t i = 0; i < n; i++) {
    near("momentum", n, i, b[i], (double)0.9f * c[i] + a[i], 1e-6);
    near("momentum", n, i, y[i], was[i] - (double)0.1f * b[i], 1e-6);
  }
}

static void test_adam(size_t n) {
  const adam_rate r = {.step = 0.01f, .root = 3, .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-3f};
  float m[MOST + 1], v[MOST + 1];
  fresh();
  for (size_t i = 0; i <= MOST; i++) v[i] = fabsf(c[i]);
  memcpy(m, b, sizeof m);
  float v_was[MOST + 1];
  memcpy(v_was, v, sizeof v);
  k->adam(y, a, m, v, n, &r);
  for (size_t i = 0; i < n; i++) {
    const double m1 = 0.9f * (double)b[i] + (1 - (double)0.9f) * a[i];
    const double v1 = 0.99f * (double)v_was[i] + (1 - (double)0.99f) * a[i] * a[i];
    near("adam", n, i, m[i], m1, 1e-6);
    near("adam", n, i, v[i], v1, 1e-6);
    near("adam", n, i, y[i], was[i] - (double)0.01f * m1 / (3 * sqrt(v1) + (double)1e-3f), 1e-6);
  }
}

static void test_softmax(size_t n) {
  double sum = 0, top = -INFINITY;
  fresh();
  const float lse = k->softmax(y, n);
  for (size_t i = 0; i < n; i++) top = was[i] > top ? was[i] : top;
  for (size_t i = 0; i < n; i++) sum += exp(was[i] - top);
  near("softmax", n, 0, lse, top + log(sum), 1e-6);
  for (size_t i = 0; i < n; i++) near("softmax", n, i, y[i], exp(was[i] - top) / sum, 1e-6);
}

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

static void test_trace(size_t n) {
  fresh();
  k->trace(y + 1, a, b, 0.7f, n);
  for (size_t i = 0; i < n; i++) {
    near("trace", n, i, y[i + 1], (double)a[i] * was[i + 1] + (double)0.7f * b[i], 1e-6);
  }
  CHECK(y[n + 1] == was[n + 1], "%s trace n=%zu wrote past its end", isa, n);
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

static void test_half(void) {
  static const struct {
    uint16_t bits;
    double value;
  } cases[] = {{0x0000, 0},        {0x3C00, 1},        {0xC000, -2},           {0x7BFF, 65504},
               {0x0400, 0x1p-14},  {0x0001, 0x1p-24},  {0x83FF, -0x1.FF8p-15}, {0x3555, 0x1.554p-2},
               {0x7C00, INFINITY}, {0xFC00, -INFINITY}};
  enum { CASES = sizeof cases / sizeof *cases };
  uint16_t bits[CASES + 1];
  for (size_t i = 0; i < CASES; i++) bits[i] = cases[i].bits;
  bits[CASES] = 0x7E01;
  k->from_f16(y, bits, CASES + 1);
  for (size_t i = 0; i < CASES; i++) {
    CHECK((double)y[i] == cases[i].value, "%s from_f16 %04x: %g", isa, cases[i].bits, (double)y[i]);
  }
  CHECK(isnan(y[CASES]), "%s from_f16 made a number of NaN", isa);
}

static void test_finite(size_t n) {
  fresh();
  CHECK(k->finite(a + 1, n), "%s finite n=%zu", isa, n);
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < 3 * n; i++) {
    const float keep = a[1 + i / 3];
    a[1 + i / 3] = bad[i % 3];
    CHECK(!k->finite(a + 1, n), "%s finite n=%zu misses %g at %zu", isa, n, (double)bad[i % 3], i / 3);
    a[1 + i / 3] = keep;
  }
}

static void test_nan_survives(size_t n) {
  for (int which = 0; which < 5; which++) {
    fresh();
    y[n - 1] = NAN;
    if (which == 0) k->relu(y, n);
    if (which == 1) k->leaky_relu(y, n, 0.1f);
    if (which == 2) k->tanh(y, n);
    if (which == 3) k->sigmoid(y, n);
    if (which == 4) k->softmax(y, n);
    CHECK(isnan(y[n - 1]), "%s activation %d n=%zu swallowed a NaN", isa, which, n);
  }
}

static void test_codes(size_t n) {
  for (uint32_t kind = EL_CODES_GAUSSIAN; kind <= EL_CODES_PAIRED; kind++) {
    const code_stream s = {.seed = 0x123456789ABCDEFull, .block = 2, .target = 3, .kind = kind, .scale = 0.75f};
    fresh();
    k->codes(y, n, &s);
    kernels_scalar.codes(a, n, &s);
    CHECK(!memcmp(y, a, n * sizeof *y), "%s codes kind %u n=%zu differ from scalar bits", isa, kind, n);
    k->codes(b, 1, &s);
    CHECK(b[0] == y[0], "%s a code depends on how many are asked for", isa);
    for (size_t i = 1; kind == EL_CODES_PAIRED && i < n; i += 2) CHECK(y[i] == -y[i - 1], "%s pair %zu", isa, i);
  }
}

static void test_dropout(size_t n) {
  const dropout_stream whole = {.seed = 5, .step = 9, .block = 1, .rate = 0.25f};
  IN_PLACE(dropout, n, k->dropout(v, n, &whole), v[i] == 0 ? 0 : w[i] / 0.75, 1e-6);
  const dropout_stream rest = {.seed = 5, .first = 1, .step = 9, .block = 1, .rate = 0.25f};
  memcpy(a, y, sizeof a);
  memcpy(y, was, sizeof y);
  k->dropout(y + 2, n - 1, &rest);
  CHECK(!memcmp(y + 2, a + 2, (n - 1) * sizeof *y), "%s dropout depends on where a batch is cut", isa);
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

/* One test per kernel, so that a kernel without one does not compile. */
enum tested {
#define EL_KERNEL(result, name, parameters) TESTED_##name,
#include "kernels.def"
#undef EL_KERNEL
  KERNELS
};
_Static_assert(KERNELS == 39, "a kernel was added: test it above, then count it here");

static void test_isa(uint32_t number) {
  k = kernels_for(number);
  isa = el_isa_name(number);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const size_t n = sizes[i];
    test_activations(n), test_losses(n), test_vectors(n), test_adam(n), test_softmax(n), test_trace(n);
    test_column_sums(n), test_column_madd(n), test_normalisation(n), test_layernorm(n), test_maxima(n);
    test_finite(n), test_nan_survives(n), test_codes(n), test_dropout(n);
  }
  test_gemm(), test_half();
  CHECK(isfinite(k->multiply_adds(100)), "%s multiply_adds", isa);
  CHECK(el_peak(number, 10) == 240 * (uint64_t)k->lanes, "%s el_peak counts its work", isa);
}

int main(void) {
  int tested = 0;
  for (uint32_t number = EL_ISA_SCALAR; number <= EL_ISA_NEON; number++) {
    if (!el_isa_available(number)) continue;
    test_isa(number);
    tested++;
  }
  printf("%d instruction sets\n", tested);
  CHECK(tested > 0 && el_isa_available(el_isa_best()), "no instruction set runs here");
  return checks_report();
}
