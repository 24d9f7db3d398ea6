/* SPDX-License-Identifier: Apache-2.0
 * Additions: y = the record before + what the branch began with. Branches lie one behind the other, never inside. */
#ifndef EL_RESIDUAL_H
#define EL_RESIDUAL_H

#include "geometry.h"
#include "net.h"

/* Whether record i of n adds what a record of its own block, or the block itself, reads too; true of others. */
int addition_fits(const el_record *records, uint32_t i);

/* The addition that needs again what record i of n reads, or 0. */
uint32_t addition_of(const el_record *records, uint32_t n, uint32_t i);

/* Whether an addition passes its error on to where its branch began: not where that is what the group reads. */
int passes_error(const el_record *records, uint32_t first, uint32_t i);

/* Floats of one sample that inference keeps while a branch runs; the widest value of any branch goes to *widest. */
size_t held_floats(const el_record *records, uint32_t n, size_t batch, size_t *widest);

#endif
