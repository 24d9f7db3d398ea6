/* SPDX-License-Identifier: Apache-2.0
 * Widths in use of a placed net: those of a level, or those that a step draws (Kudugunta et al. 2023, MatFormer,
 * section 3.2; per block, as Cai et al. 2020 do, where they are independent; behind each other where several learn). */
#ifndef EL_NEST_H
#define EL_NEST_H

#include "net.h"

/* A copy of the levels, as walk() places it. */
el_nest place_nest(uint32_t n, const el_config *c, arena *a);

/* Units in use of product i at a level, and whether that is another number at each. */
uint32_t nest_units(const el_net *net, uint32_t level, uint32_t i);
int nest_varies(const el_net *net, uint32_t i);

/* The product, embedding or recurrent record whose width record i has. */
uint32_t nest_product(const el_net *net, uint32_t i);

/* The widths of training step t of a run with this seed; nothing where the net has no levels. */
void nest_draw(el_net *net, uint64_t seed, uint64_t t);

/* That level in all blocks. */
void nest_level(el_net *net, uint32_t level);

/* Back to the net as placed. */
void nest_whole(el_net *net);

#endif
