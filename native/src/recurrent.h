/* SPDX-License-Identifier: Apache-2.0
 * Recurrent cells over a few steps: R rows are steps x M samples, one step behind the other. D inputs, U units. */
#ifndef EL_RECURRENT_H
#define EL_RECURRENT_H

#include "net.h"
#include "optim.h"

/* Steps of M samples at once. */
typedef struct stretch {
  uint32_t steps, batch;
  uint32_t first;         /* the first one */
  const uint32_t *begins; /* (M) step that each sequence begins with; NULL: all begin with step 0 */
} stretch;

/* Whether sample b takes part in step t of those at hand. */
static inline int takes_part(stretch over, uint32_t t, size_t b) {
  return !over.begins || over.first + t >= over.begins[b];
}

/* Where a recurrent record keeps what it computes; NULL what its kind has no need of. */
typedef struct cell {
  float *h, *c;    /* (B,U) what the first step at hand finds: output before it, and state of an LSTM */
  float *gates;    /* (R, gates U), and on the way back their errors */
  float *inner;    /* (R,U) EL_GRU: candidate's part of h V, and its error; EL_LSTM: states */
  float *squashed; /* (R,U) EL_LSTM: tanh of the states */
  float *trace;    /* (rows of params, M, 3 U), see traces.h */
  float *hidden;   /* (M, gates U) h V of one step; shared by all cells */
  float *carry[2]; /* (M,U) errors of output and state that go back to the step before; shared by all cells */
} cell;

/* at->y (R,U) = outputs of the steps on x (R,D) */
void cell_forward(const el_net *net, const node *at, const cell *own, const float *x, stretch over);

/* Adds to at->gradient what the errors d (R,U) of the outputs say, none of which goes back beyond these steps. d is
 * used up; dx (R,D) becomes the error of x unless it is NULL. */
void cell_back(const el_net *net, const node *at, const cell *own, const float *x, float *d, float *dx, stretch over,
               update by);

/* The same, with errors that go back along what gates keep alone (GRU: z times the output, LSTM: f times the state).
 * Returns that of what came before the first step (M,U). */
float *cell_back_kept(const el_net *net, const node *at, const cell *own, const float *x, float *d, stretch over,
                      update by);

/* What each gate's input did to the state after the last step by what gates keep: own->gates and own->inner become
 * slopes as they would become errors. Returns the share of the state that is kept through all steps (M,U). d (R,U) is
 * used up. */
const float *cell_slopes(const el_net *net, const node *at, const cell *own, float *d, stretch over);

/* The last of the steps becomes what the next ones find. */
void cell_advance(const node *at, const cell *own, stretch over);

#endif
