/* SPDX-License-Identifier: Apache-2.0
 * Tokens and places: a table's row for each token, and a learned term for each place of a sequence. */
#ifndef EL_EMBEDDING_H
#define EL_EMBEDDING_H

#include "geometry.h"
#include "net.h"
#include "optim.h"

/* EL_OK if x (B,positions) holds tokens of the vocabulary, or the net reads no tokens; else EL_ETOKEN. */
el_status tokens_check(const el_net *net, const float *x, uint32_t batch);

/* The same of all samples of a set, by way of x (batch of the net, in), before anything is learned from them. */
el_status tokens_check_all(const el_net *net, float *x, const el_samples *samples);

/* y (B,positions,U) = rows of the table; x is checked */
void embedding_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch);

/* The table takes its step, or `gradient` (vocabulary,U) gains d (B,positions,U) times share, row by row. */
void embedding_learn(const el_net *net, const node *at, const float *x, const float *d, uint32_t batch, update by);

/* y (B,positions,U) += the table */
void positions_forward(const el_net *net, float *y, const el_record *r, uint32_t batch);

#endif
