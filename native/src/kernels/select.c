/* SPDX-License-Identifier: Apache-2.0
 * Which instruction sets this machine has; the only file that asks. */
#include "edgelearn.h"
#include "kernels.h"

static int has_avx2(void) {
#ifdef EL_HAVE_AVX2
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return 0;
#endif
}

static int has_avx512(void) {
#ifdef EL_HAVE_AVX512
  return __builtin_cpu_supports("avx512f") && has_avx2();
#else
  return 0;
#endif
}

static int has_neon(void) {
#ifdef EL_HAVE_NEON
  return 1; /* part of the 64-bit Arm baseline */
#else
  return 0;
#endif
}

uint32_t el_isa_best(void) {
  if (has_neon()) return EL_ISA_NEON;
  if (has_avx512()) return EL_ISA_AVX512;
  return has_avx2() ? EL_ISA_AVX2 : EL_ISA_SCALAR;
}

const kernel_table *kernels_for(uint32_t isa) {
  if (isa == EL_ISA_AUTO) isa = el_isa_best();
#ifdef EL_HAVE_AVX2
  if (isa == EL_ISA_AVX2 && has_avx2()) return &kernels_avx2;
#endif
#ifdef EL_HAVE_AVX512
  if (isa == EL_ISA_AVX512 && has_avx512()) return &kernels_avx512;
#endif
#ifdef EL_HAVE_NEON
  if (isa == EL_ISA_NEON && has_neon()) return &kernels_neon;
#endif
  return isa == EL_ISA_SCALAR ? &kernels_scalar : NULL;
}

int el_isa_available(uint32_t isa) { return kernels_for(isa) != NULL; }

const char *el_isa_name(uint32_t isa) {
  static const char *const names[] = {"auto", "scalar", "avx2", "avx512", "neon"};
  return isa < sizeof names / sizeof *names ? names[isa] : "unknown";
}

uint64_t el_peak(uint32_t isa, uint64_t rounds) {
  const kernel_table *k = kernels_for(isa);
  if (!k) return 0;
  volatile float sink = k->multiply_adds(rounds); /* kept, so that the work is */
  (void)sink;
  return rounds * 12 * 2 * k->lanes;
}
