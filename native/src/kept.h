/* SPDX-License-Identifier: Apache-2.0
 * A copy of what training may change: an interrupted or diverging run goes back to it. */
#ifndef EL_KEPT_H
#define EL_KEPT_H

#include "net.h"

/* Room for el_net_keep(), measured dry with a NULL net. */
void place_kept(const el_record *records, uint32_t n, arena *a, el_net *net);

#endif
