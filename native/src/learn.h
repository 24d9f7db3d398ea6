/* SPDX-License-Identifier: Apache-2.0
 * From a batch in the first group's input to updated weights. */
#ifndef EL_LEARN_H
#define EL_LEARN_H

#include "net.h"

/* Records first .. last as in use, from x, which lies at an end of the region, to where the result lies. */
float *net_infer(const el_net *net, uint32_t first, uint32_t last, float *x, uint32_t batch);

/* One step of groups first .. last on what lies in the input of group `entry`; groups between run as in use, later
 * ones not at all. s->stats->loss becomes the summed loss of the last group that learned. */
el_status train_batch(el_net *net, const step *s, uint32_t entry, uint32_t first, uint32_t last);

#endif
