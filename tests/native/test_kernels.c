/* SPDX-License-Identifier: Apache-2.0
 * Every kernel of kernels.def, on every instruction set that runs here, at awkward sizes and odd addresses, against
 * plain double arithmetic; those of rows and matrices in test_rows.c. The list below is checked against kernels.def, so
 * that no kernel goes untested. */
#include "kernel_check.h"

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

static void test_trace(size_t n) {
  fresh();
  k->trace(y + 1, a, b, 0.7f, n);
  for (size_t i = 0; i < n; i++) {
    near("trace", n, i, y[i + 1], (double)a[i] * was[i + 1] + (double)0.7f * b[i], 1e-6);
  }
  CHECK(y[n + 1] == was[n + 1], "%s trace n=%zu wrote past its end", isa, n);
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

/* One test per kernel, here or in test_rows.c, so that a kernel without one does not compile. */
enum tested {
#define EL_KERNEL(result, name, parameters) TESTED_##name,
#include "kernels.def"
#undef EL_KERNEL
  KERNELS
};
_Static_assert(KERNELS == 39, "a kernel was added: test it here or in test_rows.c, then count it");

static void test_isa(uint32_t number) {
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const size_t n = sizes[i];
    test_activations(n), test_losses(n), test_vectors(n), test_adam(n), test_softmax(n), test_trace(n);
    test_finite(n), test_nan_survives(n), test_codes(n), test_dropout(n);
  }
  test_half();
  CHECK(isfinite(k->multiply_adds(100)), "%s multiply_adds", isa);
  CHECK(el_peak(number, 10) == 240 * (uint64_t)k->lanes, "%s el_peak counts its work", isa);
}

int main(void) { return on_every_set(test_isa); }
