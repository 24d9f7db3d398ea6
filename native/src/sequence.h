/* SPDX-License-Identifier: Apache-2.0
 * The recurrent blocks of a net, all of them a window of steps at a time, so that no memory grows with the number of
 * steps. R rows are the steps of a window x samples, D inputs, U units. */
#ifndef EL_SEQUENCE_H
#define EL_SEQUENCE_H

#include "recurrent.h"
#include "walk.h"

typedef struct sequence {
  section at;     /* records */
  uint32_t first; /* groups, both ends */
  uint32_t last;
  uint32_t steps;     /* of a sequence */
  uint32_t window;    /* steps at once in training */
  el_record *records; /* those of the section as they are for one step */
  cell *cells;        /* as records; empty for what is not recurrent */
  float *x;           /* (R,D) steps at hand */
  float *d, *other;   /* (R,U) errors, in turn; `other` only where one goes from record to record */
  uint32_t *begins;   /* (B) step that each sequence begins with; NULL: there is no padding */
  uint32_t *behind;   /* (B) steps of padding behind each */
  uint32_t *begun;    /* (B) whether a stream had a step before */
  float *weights;     /* (B) of a step's objective */
} sequence;

/* Everything of the above and of the section's nodes, dry with a NULL net, else into it. */
void place_sequence(const el_record *records, uint32_t n, const el_config *c, arena *a, el_net *net);

/* The section's records for one step, as wide as the net's. */
void sequence_resize(const el_net *net);

/* Whether record i runs step by step. */
static inline int is_in_section(const el_net *net, uint32_t i) {
  return net->sequence && i >= net->sequence->at.first && i <= net->sequence->at.last;
}

/* Whether all that the feed names is finite, as the group that it enters reads it. */
int feed_is_finite(const el_net *net, uint32_t batch);

/* Finds the padding in front of and behind each of the feed's sequences, if the net has any. Streams end with the piece
 * at hand, and what comes behind their first step is never padding. */
el_status feed_align(const el_net *net, uint32_t batch);

/* EL_ESTEPS if one of all samples is padding alone. */
el_status steps_check_all(const el_net *net, const el_samples *s);

/* out (B,features) = records first .. last of the section as in use, on sequences x (B,steps,D), or on those of the
 * feed where x is NULL. */
void sequence_infer(const el_net *net, float *out, uint32_t first, uint32_t last, const float *x, uint32_t batch);

/* One step of groups first .. last of the section, on sequences that enter group `entry`. */
el_status sequence_step(el_net *net, const step *s, uint32_t entry, uint32_t first, uint32_t last);

#endif
