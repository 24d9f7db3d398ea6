/* SPDX-License-Identifier: Apache-2.0 */
#if !defined(__AVX2__) || !defined(__FMA__)
#error avx2.c is compiled without -mavx2 -mfma
#endif
#define EL_USE_AVX2
#define EL_TABLE kernels_avx2
#include "body.h"
