/* SPDX-License-Identifier: Apache-2.0
 * Eligibility traces of gated cells (Bellec et al. 2020, e-prop): what each weight has done to the state so far,
 * through the gate that keeps the state, not through the outputs that gates read. Exact for that graph, forward in
 * time. */
#ifndef EL_TRACES_H
#define EL_TRACES_H

#include "recurrent.h"

/* Floats of the traces of a record for so many samples; none for EL_SIMPLE_RNN, whose state nothing keeps. */
size_t trace_floats(const el_record *r, size_t batch);

/* One step of M samples behind cell_forward(): the traces move on, and at->gradient gains what they say under the
 * errors d (M,U) of the outputs. The gates are used up. */
void trace_step(const el_net *net, const node *at, const cell *own, const float *x, const float *d, uint32_t batch,
                update by);

#endif
