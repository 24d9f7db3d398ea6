/* SPDX-License-Identifier: Apache-2.0
 * From a batch in the first group's input to updated weights. */
#ifndef EL_LEARN_H
#define EL_LEARN_H

#include "net.h"
#include "optim.h"

/* Samples first .. first+batch-1 or those that order names, as the group that they enter reads them: into x, or, of
 * sequences, known to the net as what its steps come from. EL_ENONFINITE or EL_ETOKEN names what is wrong with one. */
el_status take_batch(el_net *net, float *x, const el_samples *samples, uint64_t first, const uint64_t *order,
                     uint32_t batch);

/* Records first .. last as in use, from x, which lies at an end of the region, to where the result lies; NULL: the
 * feed's sequences. */
float *net_infer(const el_net *net, uint32_t first, uint32_t last, float *x, uint32_t batch);

/* How a group's weights move in its step on a batch. */
update update_of(const el_net *net, const group *g, uint32_t batch, float lr);

/* The gradient of a record's weights, of samples x and errors d, into the weights or into what is collected. */
void learn_record(const el_net *net, const node *at, const float *x, const float *d, uint32_t batch, update by);

/* Records first .. last of a group forward in training, on x. */
void group_forward(const el_net *net, const group *g, uint32_t first, const float *x, uint32_t batch);

/* Backward from g->error through the group's records to record `first`, which reads x; an error is passed on before the
 * weights that it meets may move. With `before`, it becomes where the error of x lies. */
el_status group_back(const el_net *net, const group *g, uint32_t first, const float *x, uint32_t batch, update by,
                     float **before);

/* Gradients to begin with: none. */
void group_begin(const el_net *net, const group *g);

/* The slice of a batch that begins with sample `from`. */
step slice_of(const el_net *net, const step *s, uint64_t from);

/* Statistics of blocks that learn nothing else are estimated all the same. */
el_status move_statistics(const el_net *net, const group *g);

/* The collected gradients, limited, into the weights. */
el_status group_apply(const el_net *net, const group *g, update by);

/* out (B,features) = records first .. last as net_infer() runs them. What ends in a sequence goes straight there, since
 * the region has no room for all of its steps. */
void outputs_of(const el_net *net, float *out, uint32_t first, uint32_t last, float *x, uint32_t batch);

/* Labels or targets are there and can be meant. */
el_status answers_check(const el_net *net, const el_samples *samples);

void stats_add(el_stats *stats, const el_stats *one);

/* One step of groups first .. last on what lies in the input of group `entry`; groups between run as in use, later
 * ones not at all. s->stats->loss becomes the summed loss of the last group that learned. */
el_status train_batch(el_net *net, const step *s, uint32_t entry, uint32_t first, uint32_t last);

#endif
