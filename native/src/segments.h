/* SPDX-License-Identifier: Apache-2.0
 * The parameters of a record that an optimizer moves, as rows in use amid those that are stored. What is kept beside
 * them, gradients, moments and copies, lies without gaps. */
#ifndef EL_SEGMENTS_H
#define EL_SEGMENTS_H

#include "geometry.h"

/* Part of a record as it is trained: runs of rows of cols floats, `skip` floats into its parameters, ld floats from
 * row to row. */
typedef struct segment {
  size_t skip;
  row_runs runs;
  size_t cols, ld;
} segment;

enum { SEGMENTS = 3 };

int has_weights(const el_record *r);

/* All parts; those that a record does not have are empty. */
void segments_of(const el_record *r, segment out[SEGMENTS]);

/* Floats of a part, and of all of them, without gaps. */
size_t segment_floats(segment part);
size_t trained_floats(const el_record *r);

/* Where a stored row of a part lies without gaps, in floats from the part's first; `part` is as wide as can be. */
size_t packed_row(segment part, size_t row);

#endif
