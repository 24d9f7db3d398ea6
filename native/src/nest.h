/* SPDX-License-Identifier: Apache-2.0
 * Widths in use of a placed net: those of a level, or those that a step draws (Kudugunta et al. 2023, MatFormer,
 * section 3.2; per block, as Cai et al. 2020 do, where they are independent; behind each other where several learn). */
#ifndef EL_NEST_H
#define EL_NEST_H

#include "net.h"

/* A copy of the levels, as walk() places it. */
el_nest place_nest(const el_record *records, uint32_t n, const el_config *c, arena *a);

/* The widths of training step t of a run with this seed; nothing where the net has no levels. */
void nest_draw(el_net *net, uint64_t seed, uint64_t t);

/* That level in all blocks. */
void nest_level(el_net *net, uint32_t level);

/* Back to the net as placed. */
void nest_whole(el_net *net);

#endif
