/* SPDX-License-Identifier: Apache-2.0
 * Every kernel of kernels.def, once, over vec.h. Included by one file per instruction set, which sets EL_TABLE. */
#include "columns.h"
#include "draws.h"
#include "elementwise.h"
#include "gemm.h"
#include "kernels.h"
#include "learning.h"

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
