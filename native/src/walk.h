/* SPDX-License-Identifier: Apache-2.0
 * The one walk over a net's records that says where everything lies: dry it measures, real it places. */
#ifndef EL_WALK_H
#define EL_WALK_H

#include "net.h"

/* EL_OK if the records are a net that the core can run under this configuration. */
el_status records_check(const el_record *records, uint32_t n, const el_config *config);

/* The net, placed in the arena; NULL when the arena measures or is too small. pool_memory: where threads go. */
el_net *walk(const el_record *records, uint32_t n, const el_config *config, arena *a, el_sizes *sizes,
             void **pool_memory);

/* Group `index` as far as records and configuration tell: all but its places. */
group group_at(const el_record *records, uint32_t n, const el_config *config, uint32_t index);

/* Features that a group whose last record this is gives: of one step where all of it is stepped. */
size_t out_of(const group *g, const el_record *last);

/* Records first .. last run step by step: the recurrent ones and what works on their outputs. */
typedef struct section {
  int any;
  uint32_t first, last;
} section;

section section_of(const el_record *records, uint32_t n);

uint32_t groups_of(const el_record *records, uint32_t n, const el_config *config);

#endif
