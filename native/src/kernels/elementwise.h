/* SPDX-License-Identifier: Apache-2.0
 * Kernels over one vector: loading, activations and their slopes. Also what the other files loop and sum with. */
#ifndef EL_ELEMENTWISE_H
#define EL_ELEMENTWISE_H

#include "vec.h"

#define EL_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define EL_UNROLL _Pragma("unroll")
#else
#define EL_UNROLL _Pragma("GCC unroll 16")
#endif

/* Runs `one`, an expression over v (and i), on y[0..n) in place. */
#define EL_EACH(y, n, one)                                                                                             \
  do {                                                                                                                 \
    size_t i = 0;                                                                                                      \
    for (; i + EL_LANES <= (n); i += EL_LANES) {                                                                       \
      vf v = v_load((y) + i);                                                                                          \
      v_store((y) + i, one(v, i, EL_LANES));                                                                           \
    }                                                                                                                  \
    if (i < (n)) {                                                                                                     \
      vf v = v_load_part((y) + i, (n) - i);                                                                            \
      v_store_part((y) + i, one(v, i, (n) - i), (n) - i);                                                              \
    }                                                                                                                  \
  } while (0)

EL_INLINE vf part(const float *p, size_t i, size_t n) { return n == EL_LANES ? v_load(p + i) : v_load_part(p + i, n); }

static float v_total(vf v) {
  float t[EL_LANES], sum = 0;
  v_store(t, v);
  for (size_t i = 0; i < EL_LANES; i++) sum += t[i];
  return sum;
}

/* exp by 2^n and a polynomial of degree 6 on +-ln2/2; relative error under 2e-7; NaN stays NaN. */
EL_INLINE vf v_exp(vf x) {
  x = v_min(v_set(88.37f), v_max(v_set(-87.33f), x));
  const vf n = v_round(v_mul(x, v_set(1.44269504f)));
  vf r = v_fma(n, v_set(-0.693359375f), x);
  r = v_fma(n, v_set(2.12194440e-4f), r);
  vf p = v_set(1.9875691500e-4f);
  p = v_fma(p, r, v_set(1.3981999507e-3f));
  p = v_fma(p, r, v_set(8.3334519073e-3f));
  p = v_fma(p, r, v_set(4.1665795894e-2f));
  p = v_fma(p, r, v_set(1.6666665459e-1f));
  p = v_fma(p, r, v_set(5.0000001201e-1f));
  p = v_add(v_fma(v_mul(p, r), r, r), v_set(1));
  return v_mul(p, v_pow2(n));
}

static int k_finite(const float *x, size_t n) {
  vf sum = v_set(0); /* x * 0 is 0 for finite x and NaN otherwise */
  size_t i = 0;
  for (; i + EL_LANES <= n; i += EL_LANES) sum = v_fma(v_load(x + i), v_set(0), sum);
  if (i < n) sum = v_fma(v_load_part(x + i, n - i), v_set(0), sum);
  return v_total(sum) == 0;
}

static void k_from_u8(float *y, const uint8_t *x, size_t n) {
  size_t i = 0;
  for (; i + EL_LANES <= n; i += EL_LANES) v_store(y + i, v_from_u8(x + i));
  for (; i < n; i++) y[i] = x[i];
}

/* IEEE half precision: the exponent is moved by a multiplication, which also scales subnormals right. */
static void k_from_f16(float *y, const uint16_t *x, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const uint32_t h = x[i], magnitude = (h & 0x7FFFu) << 13;
    float value;
    memcpy(&value, &magnitude, sizeof value);
    value *= 0x1p112f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits |= (h & 0x8000u) << 16 | ((h & 0x7C00u) == 0x7C00u ? 0x7F800000u : 0);
    memcpy(y + i, &bits, sizeof bits);
  }
}

static void rescale_all(float *y, size_t n, const float *scale, const float *shift) {
  const vf a = v_set(*scale), b = v_set(*shift);
#define ONE(v, i, m) v_fma(v, a, b)
  EL_EACH(y, n, ONE);
#undef ONE
}

static void rescale_run(float *y, size_t n, const float *scale, const float *shift) {
#define ONE(v, i, m) v_fma(v, part(scale, i, m), part(shift, i, m))
  EL_EACH(y, n, ONE);
#undef ONE
}

static void k_rescale(float *y, size_t n, const float *scale, const float *shift, size_t pairs) {
  if (pairs == 1) {
    rescale_all(y, n, scale, shift);
    return;
  }
  for (size_t i = 0; i + pairs <= n; i += pairs) rescale_run(y + i, pairs, scale, shift);
}

static void k_relu(float *y, size_t n) {
#define ONE(v, i, m) v_relu(v)
  EL_EACH(y, n, ONE);
#undef ONE
}

static void k_leaky_relu(float *y, size_t n, float slope) {
  const vf a = v_set(slope);
#define ONE(v, i, m) v_pick(v, v, v_mul(v, a))
  EL_EACH(y, n, ONE);
#undef ONE
}

static void k_tanh(float *y, size_t n) {
  const vf one = v_set(1), two = v_set(2);
#define ONE(v, i, m) v_sub(one, v_div(two, v_add(v_exp(v_mul(v, two)), one)))
  EL_EACH(y, n, ONE);
#undef ONE
}

static void k_sigmoid(float *y, size_t n) {
  const vf one = v_set(1), minus = v_set(-1);
#define ONE(v, i, m) v_div(one, v_add(one, v_exp(v_mul(v, minus))))
  EL_EACH(y, n, ONE);
#undef ONE
}

/* sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3): half of 1 + tanh(u) */
EL_INLINE vf gelu_gate(vf x) {
  const vf minus = v_set(-1.5957691216f), inner = v_fma(v_mul(x, x), v_set(0.044715f), v_set(1));
  return v_div(v_set(1), v_add(v_set(1), v_exp(v_mul(minus, v_mul(x, inner)))));
}

EL_INLINE vf gelu_slope(vf x) {
  const vf s = gelu_gate(x), bend = v_fma(v_mul(x, x), v_set(3 * 0.044715f), v_set(1));
  const vf rise = v_mul(v_mul(x, v_set(1.5957691216f)), v_mul(s, v_sub(v_set(1), s)));
  return v_fma(rise, bend, s);
}

static void k_gelu(float *y, size_t n) {
#define ONE(v, i, m) v_mul(v, gelu_gate(v))
  EL_EACH(y, n, ONE);
#undef ONE
}

static void k_gelu_back(float *d, const float *x, size_t n) {
#define ONE(v, i, m) v_mul(v, gelu_slope(part(x, i, m)))
  EL_EACH(d, n, ONE);
#undef ONE
}

static void k_max_into(float *y, const float *x, size_t n) {
#define ONE(v, i, m) v_pick(v_sub(part(x, i, m), v), part(x, i, m), v)
  EL_EACH(y, n, ONE);
#undef ONE
}

/* a where x == y, else b */
EL_INLINE vf same_pick(vf x, vf y, vf a, vf b) { return v_pick(v_sub(x, y), b, v_pick(v_sub(y, x), b, a)); }

static void k_max_back(float *dx, float *left, const float *x, const float *y, size_t n) {
  const vf zero = v_set(0);
#define ONE(v, i, m) v_add(v, same_pick(part(x, i, m), part(y, i, m), part(left, i, m), zero))
  EL_EACH(dx, n, ONE);
#undef ONE
#define ONE(v, i, m) same_pick(part(x, i, m), part(y, i, m), zero, v)
  EL_EACH(left, n, ONE);
#undef ONE
}

static float k_softmax(float *y, size_t n) {
  float top = y[0], sum = 0;
  for (size_t i = 1; i < n; i++) top = y[i] > top ? y[i] : top;
  const vf base = v_set(top);
#define ONE(v, i, m) v_exp(v_sub(v, base))
  EL_EACH(y, n, ONE);
#undef ONE
  for (size_t i = 0; i < n; i++) sum += y[i];
  const float inverse = 1 / sum;
  for (size_t i = 0; i < n; i++) y[i] *= inverse;
  return top + logf(sum);
}

static void k_relu_back(float *d, const float *h, size_t n) {
#define ONE(v, i, m) v_pick(part(h, i, m), v, v_set(0))
  EL_EACH(d, n, ONE);
#undef ONE
}

static void k_leaky_relu_back(float *d, const float *h, size_t n, float slope) {
  const vf a = v_set(slope);
#define ONE(v, i, m) v_pick(part(h, i, m), v, v_mul(v, a))
  EL_EACH(d, n, ONE);
#undef ONE
}

EL_INLINE vf tanh_slope(vf h) { return v_sub(v_set(1), v_mul(h, h)); }
EL_INLINE vf sigmoid_slope(vf h) { return v_mul(h, v_sub(v_set(1), h)); }

static void k_tanh_back(float *d, const float *h, size_t n) {
#define ONE(v, i, m) v_mul(v, tanh_slope(part(h, i, m)))
  EL_EACH(d, n, ONE);
#undef ONE
}

static void k_sigmoid_back(float *d, const float *h, size_t n) {
#define ONE(v, i, m) v_mul(v, sigmoid_slope(part(h, i, m)))
  EL_EACH(d, n, ONE);
#undef ONE
}

#endif
