/* SPDX-License-Identifier: Apache-2.0
 * Eligibility traces of gated cells (Bellec et al. 2020, e-prop): what each weight has done to the state so far,
 * through the gate that keeps the state, not through the outputs that gates read. Exact for that graph. Within the
 * steps at hand the sum over them is taken from the last one back, which is the same number for less work; what lies
 * before them is in the traces, so that memory does not grow with the number of steps. */
#ifndef EL_TRACES_H
#define EL_TRACES_H

#include "recurrent.h"

enum { TRACE_STEPS = 32 }; /* at hand at once: more save time and take memory */

/* Floats of the traces of a record for so many samples; none for EL_SIMPLE_RNN, whose state nothing keeps. */
size_t trace_floats(const el_record *r, size_t batch);

/* As cell_back(), with what earlier steps did to the state. With `goes_on` the traces are read and move on over these
 * steps; without, there is nothing before or behind them. */
void trace_back(const el_net *net, const node *at, const cell *own, const float *x, float *d, stretch over, update by,
                int goes_on);

#endif
