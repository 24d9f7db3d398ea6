/* SPDX-License-Identifier: Apache-2.0
 * Kernels of learning: losses against a code, and optimizers. */
#ifndef EL_LEARNING_H
#define EL_LEARNING_H

#include "elementwise.h"
#include "kernels.h"

static float k_l2(float *d, const float *h, size_t n) {
  vf sum = v_set(0);
#define ONE(v, i, m) (v = v_sub(part(h, i, m), v), sum = v_fma(v, v, sum), v)
  EL_EACH(d, n, ONE);
#undef ONE
  return 0.5f * v_total(sum);
}

static float k_l1(float *d, const float *h, size_t n) {
  const vf zero = v_set(0), one = v_set(1), minus = v_set(-1);
  vf sum = zero;
#define ONE(v, i, m)                                                                                                   \
  (v = v_sub(part(h, i, m), v), sum = v_add(sum, v_max(v_sub(zero, v), v)),                                            \
   v_pick(v, one, v_pick(v_sub(zero, v), minus, zero)))
  EL_EACH(d, n, ONE);
#undef ONE
  return v_total(sum);
}

static float k_huber(float *d, const float *h, size_t n, float delta) {
  const vf low = v_set(-delta), high = v_set(delta), half = v_set(-0.5f);
  vf sum = v_set(0), e;
#define ONE(v, i, m)                                                                                                   \
  (e = v_sub(part(h, i, m), v), v = v_max(low, v_min(high, e)), /* loss: v (e - v / 2) */                              \
   sum = v_fma(v, v_fma(v, half, e), sum), v)
  EL_EACH(d, n, ONE);
#undef ONE
  return v_total(sum);
}

static float k_linear(float *d, const float *h, size_t n) {
  const vf zero = v_set(0);
  vf sum = zero;
#define ONE(v, i, m) (v = v_sub(zero, v), sum = v_fma(v, part(h, i, m), sum), v)
  EL_EACH(d, n, ONE);
#undef ONE
  return v_total(sum);
}

static void k_axpy(float *y, float a, const float *x, size_t n) {
  const vf s = v_set(a);
#define ONE(v, i, m) v_fma(s, part(x, i, m), v)
  EL_EACH(y, n, ONE);
#undef ONE
}

static void k_scale(float *y, float a, size_t n) {
  const vf s = v_set(a);
#define ONE(v, i, m) v_mul(v, s)
  EL_EACH(y, n, ONE);
#undef ONE
}

static void k_momentum(float *w, const float *g, float *m, size_t n, float lr, float mu) {
  const vf decay = v_set(mu), step = v_set(-lr);
#define ONE(v, i, c) v_fma(decay, v, part(g, i, c))
  EL_EACH(m, n, ONE);
#undef ONE
#define ONE(v, i, c) v_fma(step, part(m, i, c), v)
  EL_EACH(w, n, ONE);
#undef ONE
}

/* e = keep e + x slope */
static void k_trace(float *e, const float *keep, const float *slope, float x, size_t n) {
  const vf input = v_set(x);
#define ONE(v, i, c) v_fma(part(keep, i, c), v, v_mul(input, part(slope, i, c)))
  EL_EACH(e, n, ONE);
#undef ONE
}

EL_INLINE void adam_one(float *w, const float *g, float *m, float *v, size_t c, const adam_rate *r) {
  const vf grad = part(g, 0, c), old = part(m, 0, c), square = part(v, 0, c);
  const vf first = v_fma(v_set(r->beta1), v_sub(old, grad), grad);
  const vf gg = v_mul(grad, grad), second = v_fma(v_set(r->beta2), v_sub(square, gg), gg);
  const vf below = v_fma(v_sqrt(second), v_set(r->root), v_set(r->epsilon));
  const vf moved = v_sub(part(w, 0, c), v_div(v_mul(v_set(r->step), first), below));
  if (c == EL_LANES) {
    v_store(m, first), v_store(v, second), v_store(w, moved);
  } else {
    v_store_part(m, first, c), v_store_part(v, second, c), v_store_part(w, moved, c);
  }
}

static void k_adam(float *w, const float *g, float *m, float *v, size_t n, const adam_rate *rate) {
  size_t i = 0;
  for (; i + EL_LANES <= n; i += EL_LANES) adam_one(w + i, g + i, m + i, v + i, EL_LANES, rate);
  if (i < n) adam_one(w + i, g + i, m + i, v + i, n - i, rate);
}

#endif
