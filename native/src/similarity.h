/* SPDX-License-Identifier: Apache-2.0
 * Similarity matching (Nokland & Eidnes 2019, section 2.2): samples of one class are made alike, others unlike, in what
 * the objective sees. Their projection of it, learned beside the net, made nets worse here: docs/decisions.md, 20. */
#ifndef EL_SIMILARITY_H
#define EL_SIMILARITY_H

#include "rules.h"

/* Whether a rule compares samples. */
static inline int compares(const el_rule *r) { return r->objective == EL_READOUT_SIM || r->objective == EL_TP_CE_SIM; }

/* Adds the loss of h (M,u) times `share` to *loss and its gradient to d. */
void similarity_objective(const el_net *net, const group *g, const step *s, const float *h, float *d, float share,
                          double *loss);

#endif
