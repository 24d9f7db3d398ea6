/* SPDX-License-Identifier: Apache-2.0
 * The way forward through a stretch of steps, as inference and learning take it. R rows are the steps of a stretch x
 * samples, B samples, D inputs, U units. */
#ifndef EL_SEQUENCE_STEPS_H
#define EL_SEQUENCE_STEPS_H

#include "sequence.h"

/* A stretch of a slice of the batch: its first step, and the sample that the slice begins with. */
typedef struct place {
  uint32_t step;
  uint64_t from;
  stretch over;
} place;

static inline size_t rows_of(place p) { return (size_t)p.over.steps * p.over.batch; }

static inline const cell *cell_of(const el_net *net, uint32_t record) {
  return net->sequence->cells + (record - net->sequence->at.first);
}

/* The first of a group's records that is not a rescaling, which is done while loading. */
static inline uint32_t first_of(const el_net *net, const group *g) {
  return g->first + (net->records[g->first].op == EL_RESCALE);
}

static inline uint32_t steps_of(const el_net *net) {
  return net->feed.samples ? net->feed.steps : net->sequence->steps;
}

/* Whether a sequence is longer than the steps at hand, or goes on in another piece. */
static inline int is_carried(const el_net *net) { return net->feed.goes_on || steps_of(net) > net->sequence->window; }

/* sequence->x (R,n) = the steps of a stretch, of sequences x (B,T,n) or of the feed where x is NULL */
void steps_load(const el_net *net, const float *x, size_t n, place p);

/* Values y (R,U) of record r into what sequences hand on, out (B,T,U), or those of the last step (B,U), from sample 0
 * of the batch on. */
void steps_store(const el_net *net, float *out, const el_record *r, const float *y, place p);

/* States, and in learning traces, of samples that nothing came before. */
void steps_forget(const el_net *net, uint32_t first, uint32_t last, uint32_t batch, int learning);

/* Records first .. last on x (R,D); group NULL: as in use. Returns the output of the last. */
float *steps_forward(const el_net *net, const group *g, uint32_t first, uint32_t last, float *x, place p);

/* What a stretch leaves behind becomes what came before. */
void steps_advance(const el_net *net, uint32_t first, uint32_t last, stretch over);

/* y (R,U), outputs of dropout record i or their errors. Every element's place in the batch of sequences is that of its
 * mask, however many steps are at hand. */
void steps_dropout(const el_net *net, const group *g, uint32_t i, float *y, place p);

#endif
