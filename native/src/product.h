/* SPDX-License-Identifier: Apache-2.0
 * Matrix products of a net. */
#ifndef EL_PRODUCT_H
#define EL_PRODUCT_H

#include "net.h"

/* The product, shared out over the net's threads when it is worth waking them. */
void net_gemm(const el_net *net, const gemm_job *job);

#endif
