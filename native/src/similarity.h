/* SPDX-License-Identifier: Apache-2.0
 * Similarity matching (Nokland & Eidnes 2019, section 2.2): samples of one class are made alike, others unlike, in what
 * the objective sees or as seen through a learned projection of it. */
#ifndef EL_SIMILARITY_H
#define EL_SIMILARITY_H

#include "optim.h"
#include "rules.h"

/* Whether a rule compares samples, and what the objective sees only through a projection. */
static inline int compares(const el_rule *r) { return r->objective == EL_READOUT_SIM || r->objective == EL_TP_CE_SIM; }
static inline int is_projected(const el_rule *r) { return r->objective == EL_READOUT_SIM; }

/* Features in which the samples of a group are compared: rows of its projection, if there is one. */
static inline size_t similarity_width(const el_rule *r, const group *g) {
  return is_projected(r) && g->seen > 128 ? 128 : g->seen;
}

/* The projection begins as random codes from the seed. */
void similarity_begin(const el_net *net, const group *g);

/* Adds the loss of h (M,u) times `share` to *loss and its gradient to d; leaves the projection's error. */
void similarity_objective(const el_net *net, const group *g, const step *s, const float *h, float *d, float share,
                          double *loss);

/* The projection takes its own step, or adds its gradient to projection_sum. */
void similarity_learn(const el_net *net, const group *g, const float *h, uint32_t batch, update by);

#endif
