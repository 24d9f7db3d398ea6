/* SPDX-License-Identifier: Apache-2.0
 * A vector of EL_LANES floats. An instruction set is this short list; body.h is written over it.
 * v_relu keeps NaN on every set, so that no machine accepts what another refuses. */
#ifndef EL_VEC_H
#define EL_VEC_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(EL_USE_AVX512)
#include <immintrin.h>
#define EL_LANES 16
#define EL_ROWS 8
typedef __m512 vf;
static inline __mmask16 v_mask(size_t n) { return (__mmask16)((1u << n) - 1u); }
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf v_load_part(const float *p, size_t n) { return _mm512_maskz_loadu_ps(v_mask(n), p); }
static inline void v_store_part(float *p, vf v, size_t n) { _mm512_mask_storeu_ps(p, v_mask(n), v); }
static inline vf v_set(float x) { return _mm512_set1_ps(x); }
static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf v_relu(vf a) { return _mm512_max_ps(_mm512_setzero_ps(), a); }
/* a where h > 0, else b */
static inline vf v_pick(vf h, vf a, vf b) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(h, _mm512_setzero_ps(), _CMP_GT_OQ), b, a);
}
static inline vf v_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf v_pow2(vf n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
static inline vf v_from_u8(const uint8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* vectors of 32-bit words, for the random generator */
typedef __m512i vu;
static inline void u_store(uint32_t *p, vu v) { _mm512_storeu_si512(p, v); }
static inline vu u_set(uint32_t x) { return _mm512_set1_epi32((int)x); }
static inline vu u_count(uint32_t x) {
  return _mm512_add_epi32(u_set(x), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
static inline vu u_xor(vu a, vu b) { return _mm512_xor_si512(a, b); }
static inline vu u_low(vu a, uint32_t m) { return _mm512_mullo_epi32(a, u_set(m)); }
static inline vu u_high(vu a, uint32_t m) {
  const vu even = _mm512_mul_epu32(a, u_set(m)), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), u_set(m));
  return _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
}

#elif defined(EL_USE_AVX2)
#include <immintrin.h>
#define EL_LANES 8
#define EL_ROWS 6
typedef __m256 vf;
static inline __m256i v_mask(size_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf v_load_part(const float *p, size_t n) { return _mm256_maskload_ps(p, v_mask(n)); }
static inline void v_store_part(float *p, vf v, size_t n) { _mm256_maskstore_ps(p, v_mask(n), v); }
static inline vf v_set(float x) { return _mm256_set1_ps(x); }
static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf v_relu(vf a) { return _mm256_max_ps(_mm256_setzero_ps(), a); }
/* a where h > 0, else b */
static inline vf v_pick(vf h, vf a, vf b) {
  return _mm256_blendv_ps(b, a, _mm256_cmp_ps(h, _mm256_setzero_ps(), _CMP_GT_OQ));
}
static inline vf v_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf v_pow2(vf n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline vf v_from_u8(const uint8_t *p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
/* vectors of 32-bit words, for the random generator */
typedef __m256i vu;
static inline void u_store(uint32_t *p, vu v) { _mm256_storeu_si256((__m256i *)(void *)p, v); }
static inline vu u_set(uint32_t x) { return _mm256_set1_epi32((int)x); }
static inline vu u_count(uint32_t x) { return _mm256_add_epi32(u_set(x), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
static inline vu u_xor(vu a, vu b) { return _mm256_xor_si256(a, b); }
static inline vu u_low(vu a, uint32_t m) { return _mm256_mullo_epi32(a, u_set(m)); }
static inline vu u_high(vu a, uint32_t m) {
  const vu even = _mm256_mul_epu32(a, u_set(m)), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), u_set(m));
  return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

#elif defined(EL_USE_NEON)
#include <arm_neon.h>
#define EL_LANES 4
#define EL_ROWS 8
typedef float32x4_t vf;
static inline vf v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vf v) { vst1q_f32(p, v); }
static inline vf v_load_part(const float *p, size_t n) {
  float t[4] = {0};
  for (size_t i = 0; i < n; i++) t[i] = p[i];
  return vld1q_f32(t);
}
static inline void v_store_part(float *p, vf v, size_t n) {
  float t[4];
  vst1q_f32(t, v);
  for (size_t i = 0; i < n; i++) p[i] = t[i];
}
static inline vf v_set(float x) { return vdupq_n_f32(x); }
static inline vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf v_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf v_sqrt(vf a) { return vsqrtq_f32(a); }
static inline vf v_relu(vf a) { return vbslq_f32(vcltq_f32(a, vdupq_n_f32(0)), vdupq_n_f32(0), a); }
/* a where h > 0, else b */
static inline vf v_pick(vf h, vf a, vf b) { return vbslq_f32(vcgtq_f32(h, vdupq_n_f32(0)), a, b); }
static inline vf v_round(vf a) { return vrndnq_f32(a); }
static inline vf v_pow2(vf n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
static inline vf v_from_u8(const uint8_t *p) {
  const float t[4] = {p[0], p[1], p[2], p[3]};
  return vld1q_f32(t);
}
/* vectors of 32-bit words, for the random generator */
typedef uint32x4_t vu;
static inline void u_store(uint32_t *p, vu v) { vst1q_u32(p, v); }
static inline vu u_set(uint32_t x) { return vdupq_n_u32(x); }
static inline vu u_count(uint32_t x) {
  const uint32_t t[4] = {x, x + 1, x + 2, x + 3};
  return vld1q_u32(t);
}
static inline vu u_xor(vu a, vu b) { return veorq_u32(a, b); }
static inline vu u_low(vu a, uint32_t m) { return vmulq_u32(a, u_set(m)); }
static inline vu u_high(vu a, uint32_t m) {
  const uint64x2_t first = vmull_u32(vget_low_u32(a), vdup_n_u32(m));
  const uint64x2_t second = vmull_u32(vget_high_u32(a), vdup_n_u32(m));
  return vuzp2q_u32(vreinterpretq_u32_u64(first), vreinterpretq_u32_u64(second));
}

#else
#define EL_LANES 1
#define EL_ROWS 4
typedef float vf;
static inline vf v_load(const float *p) { return *p; }
static inline void v_store(float *p, vf v) { *p = v; }
static inline vf v_load_part(const float *p, size_t n) { return n ? *p : 0.0f; }
static inline void v_store_part(float *p, vf v, size_t n) {
  if (n) *p = v;
}
static inline vf v_set(float x) { return x; }
static inline vf v_add(vf a, vf b) { return a + b; }
static inline vf v_sub(vf a, vf b) { return a - b; }
static inline vf v_mul(vf a, vf b) { return a * b; }
static inline vf v_div(vf a, vf b) { return a / b; }
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf v_min(vf a, vf b) { return a < b ? a : b; }
static inline vf v_max(vf a, vf b) { return a > b ? a : b; }
static inline vf v_sqrt(vf a) { return sqrtf(a); }
static inline vf v_relu(vf a) { return a < 0 ? 0 : a; }
/* a where h > 0, else b */
static inline vf v_pick(vf h, vf a, vf b) { return h > 0 ? a : b; }
static inline vf v_round(vf a) { return nearbyintf(a); }
static inline vf v_pow2(vf n) {
  /* a NaN has no integer; the caller's NaN survives through the other factor */
  const uint32_t bits = (uint32_t)((n == n ? (int32_t)n : 0) + 127) << 23;
  float y;
  memcpy(&y, &bits, sizeof y);
  return y;
}
static inline vf v_from_u8(const uint8_t *p) { return *p; }
/* one 32-bit word, for the random generator */
typedef uint32_t vu;
static inline void u_store(uint32_t *p, vu v) { *p = v; }
static inline vu u_set(uint32_t x) { return x; }
static inline vu u_count(uint32_t x) { return x; }
static inline vu u_xor(vu a, vu b) { return a ^ b; }
static inline vu u_low(vu a, uint32_t m) { return a * m; }
static inline vu u_high(vu a, uint32_t m) { return (uint32_t)((uint64_t)a * m >> 32); }

#endif

#endif
