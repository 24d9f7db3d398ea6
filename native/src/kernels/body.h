/* SPDX-License-Identifier: Apache-2.0
 * Every kernel of kernels.def, once, over vec.h. Included by one file per instruction set, which sets EL_TABLE. */
#include "edgelearn.h"
#include "gemm.h"
#include "kernels.h"
#include "philox.h"
#include "vec.h"

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

static void k_column_sum(float *out, const float *x, size_t rows, size_t cols) {
  memset(out, 0, cols * sizeof *out);
  for (size_t r = 0; r < rows; r++) k_axpy(out, 1, x + r * cols, cols);
}

static void k_column_dot(float *out, const float *x, const float *y, size_t rows, size_t cols) {
  memset(out, 0, cols * sizeof *out);
  for (size_t r = 0; r < rows; r++) {
    const float *a = x + r * cols, *b = y + r * cols;
#define ONE(v, i, m) v_fma(part(a, i, m), part(b, i, m), v)
    EL_EACH(out, cols, ONE);
#undef ONE
  }
}

static void k_column_affine(float *y, const float *x, const float *a, const float *b, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++) {
    const float *from = x + r * cols;
    float *to = y + r * cols;
    for (size_t i = 0; i < cols; i += EL_LANES) {
      const size_t m = cols - i < EL_LANES ? cols - i : EL_LANES;
      const vf v = v_fma(part(from, i, m), part(a, i, m), part(b, i, m));
      if (m == EL_LANES) {
        v_store(to + i, v);
      } else {
        v_store_part(to + i, v, m);
      }
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

/* Integer arithmetic up to one exact conversion and two multiplications: the same bits on every machine. */
static float code_value(uint32_t w0, uint32_t w1, uint32_t kind, float scale) {
  if (kind == EL_CODES_SIGN) return w0 >> 31 ? scale : -scale;
  if (kind == EL_CODES_GAUSSIAN) { /* sum of 8 bytes: mean 1020, variance 43690 (Irwin-Hall) */
    const uint32_t pairs = (w0 & 0x00FF00FFu) + (w0 >> 8 & 0x00FF00FFu) + (w1 & 0x00FF00FFu) + (w1 >> 8 & 0x00FF00FFu);
    const int32_t sum = (int32_t)((pairs & 0xFFFFu) + (pairs >> 16));
    return (float)(sum - 1020) * 0.0047842372f * scale;
  }
  return (float)(2 * (int32_t)(w0 >> 8) + 1 - (1 << 24)) * 0x1p-24f * scale;
}

static void k_codes(float *out, size_t n, const code_stream *s) {
  for (size_t i = 0; i < n; i++) {
    const philox_words w = philox(s->seed, (uint32_t)i, s->target, s->block, STREAM_CODES);
    out[i] = code_value(w.w[0], w.w[1], s->kind, s->scale);
  }
}

static void k_dropout(float *y, size_t n, const dropout_stream *s) {
  const float keep = 1 / (1 - s->rate);
  for (size_t i = 0; i < n; i++) {
    const uint64_t e = s->first + i;
    const philox_words w = philox(s->seed, (uint32_t)(e >> 2), s->step, s->block, STREAM_DROPOUT);
    y[i] = (float)(w.w[e & 3] >> 8) * 0x1p-24f < s->rate ? 0 : y[i] * keep;
  }
}

/* 12 independent chains of vector multiply-adds, `rounds` long: as fast as this core can. */
static float k_multiply_adds(uint64_t rounds) {
  vf chain[12];
  for (int i = 0; i < 12; i++) chain[i] = v_set((float)i);
  const vf factor = v_set(0.5f), term = v_set(1);
  for (uint64_t r = 0; r < rounds; r++) {
    EL_UNROLL
    for (int i = 0; i < 12; i++) chain[i] = v_fma(chain[i], factor, term);
  }
  for (int i = 1; i < 12; i++) chain[0] = v_add(chain[0], chain[i]);
  return v_total(chain[0]);
}

const kernel_table EL_TABLE = {
    .lanes = EL_LANES,
#define EL_KERNEL(result, name, parameters) .name = k_##name,
#include "kernels.def"
#undef EL_KERNEL
};
