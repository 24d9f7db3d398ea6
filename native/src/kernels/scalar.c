/* SPDX-License-Identifier: Apache-2.0 */
#define EL_TABLE kernels_scalar
#include "body.h"
