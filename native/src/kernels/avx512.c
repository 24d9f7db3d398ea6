/* SPDX-License-Identifier: Apache-2.0 */
#if !defined(__AVX512F__)
#error avx512.c is compiled without -mavx512f
#endif
#define EL_USE_AVX512
#define EL_TABLE kernels_avx512
#include "body.h"
