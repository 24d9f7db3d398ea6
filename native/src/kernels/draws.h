/* SPDX-License-Identifier: Apache-2.0
 * Kernels that draw from the counter-based generator: codes of labels, dropout masks. */
#ifndef EL_DRAWS_H
#define EL_DRAWS_H

#include "edgelearn.h"
#include "elementwise.h"
#include "kernels.h"
#include "philox.h"

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

/* philox() of philox.h for EL_LANES counters from first on; the first two words of each. */
EL_INLINE void philox_vector(uint32_t w0[EL_LANES], uint32_t w1[EL_LANES], uint32_t first, const code_stream *s) {
  vu c0 = u_count(first), c1 = u_set(s->target), c2 = u_set(s->block), c3 = u_set(STREAM_CODES);
  uint32_t k0 = (uint32_t)s->seed, k1 = (uint32_t)(s->seed >> 32);
  for (int round = 0; round < 10; round++) {
    const vu a = u_xor(u_xor(u_high(c2, PHILOX_M1), c1), u_set(k0));
    const vu b = u_xor(u_xor(u_high(c0, PHILOX_M0), c3), u_set(k1));
    c1 = u_low(c2, PHILOX_M1);
    c3 = u_low(c0, PHILOX_M0);
    c0 = a;
    c2 = b;
    k0 += PHILOX_W0;
    k1 += PHILOX_W1;
  }
  u_store(w0, c0);
  u_store(w1, c1);
}

/* Pairs of opposite values, each from one counter. */
static void paired_codes(float *out, size_t n, const code_stream *s) {
  for (size_t i = 0; 2 * i < n; i += EL_LANES) {
    uint32_t w0[EL_LANES], w1[EL_LANES];
    philox_vector(w0, w1, (uint32_t)i, s);
    for (size_t j = 0; j < EL_LANES && 2 * (i + j) < n; j++) {
      float *pair = out + 2 * (i + j);
      pair[0] = code_value(w0[j], w1[j], EL_CODES_GAUSSIAN, s->scale);
      if (2 * (i + j) + 1 < n) pair[1] = -pair[0];
    }
  }
}

static void k_codes(float *out, size_t n, const code_stream *s) {
  if (s->kind == EL_CODES_PAIRED) {
    paired_codes(out, n, s);
    return;
  }
  for (size_t i = 0; i < n; i += EL_LANES) {
    uint32_t w0[EL_LANES], w1[EL_LANES];
    philox_vector(w0, w1, (uint32_t)i, s);
    for (size_t j = 0; j < EL_LANES && i + j < n; j++) out[i + j] = code_value(w0[j], w1[j], s->kind, s->scale);
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

#endif
