/* SPDX-License-Identifier: Apache-2.0
 * Similarity matching (Nokland & Eidnes 2019, section 2.2): samples of one class are made alike, others unlike, as seen
 * through a learned projection of what the objective sees. */
#ifndef EL_SIMILARITY_H
#define EL_SIMILARITY_H

#include "optim.h"
#include "rules.h"

/* Rows of the projection of a group. */
static inline size_t similarity_width(const group *g) { return g->seen < 128 ? g->seen : 128; }

/* The projection begins as random codes from the seed. */
void similarity_begin(const el_net *net, const group *g);

/* Adds the loss of h (M,u) times `share` to *loss and its gradient to d; leaves the projection's error. */
void similarity_objective(const el_net *net, const group *g, const step *s, const float *h, float *d, float share,
                          double *loss);

/* The projection takes its own step, or adds its gradient to projection_sum. */
void similarity_learn(const el_net *net, const group *g, const float *h, uint32_t batch, update by);

#endif
