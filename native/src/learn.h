/* SPDX-License-Identifier: Apache-2.0
 * From a batch in the first group's input to updated weights. */
#ifndef EL_LEARN_H
#define EL_LEARN_H

#include "net.h"

/* One step of groups first_group .. last_group; earlier ones run as in use, later ones not at all.
 * s->stats->loss becomes the summed loss of the last group that learned. */
el_status train_batch(el_net *net, const step *s, uint32_t first_group, uint32_t last_group);

#endif
