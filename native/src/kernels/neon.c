/* SPDX-License-Identifier: Apache-2.0 */
#if !defined(__aarch64__)
#error neon.c is for 64-bit Arm
#endif
#define EL_USE_NEON
#define EL_TABLE kernels_neon
#include "body.h"
