/* SPDX-License-Identifier: Apache-2.0
 * The caller's samples, of any of their types, as the floats that a net reads. */
#ifndef EL_SAMPLES_H
#define EL_SAMPLES_H

#include "net.h"

/* Whether scale and shift of samples fit what the group reads that they enter. */
int pairs_fit(const el_net *net, const el_samples *samples);

/* Samples first .. first+batch-1 of the data or those that order names, as the group
 * that they enter reads them: x (B,in). */
void load_batch(const el_net *net, float *x, const el_samples *samples, uint64_t first, const uint64_t *order,
                uint32_t batch);

/* n values of the data, from value `at` on, as floats. */
void load_values(const el_net *net, float *y, const el_samples *samples, uint64_t at, size_t n);

#endif
