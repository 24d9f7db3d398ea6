/* SPDX-License-Identifier: Apache-2.0
 * The rooms of learning, as walk() places them: dry with a NULL net, else into it. */
#ifndef EL_ROOM_H
#define EL_ROOM_H

#include "net.h"
#include "walk.h"

/* Update counts, read-outs, moments: zeroed. */
void place_state(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net);

/* Gradients of one group at a time share one place: where those of a group's records lie at the widths in use. */
void share_sums(el_net *net, group *g);

void place_scratch(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net);

#endif
