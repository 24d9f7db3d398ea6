/* SPDX-License-Identifier: Apache-2.0
 * Local objectives: the loss of a group's own output and its gradient. No later weight is in sight. */
#ifndef EL_RULES_H
#define EL_RULES_H

#include "net.h"
#include "optim.h"

/* g->error (M,out) = gradient of the group's objective per sample; the sum of losses is added to *loss. */
void objective(const el_net *net, const group *g, int is_output, const step *s, double *loss);

/* A learned read-out takes its own step, or adds its gradient to readout_sum, by what objective() left. */
void readout_learn(const el_net *net, const group *g, uint32_t batch, update by);

#endif
