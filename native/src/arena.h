/* SPDX-License-Identifier: Apache-2.0
 * Bump allocation inside the caller's memory. A NULL base measures: the same walk, dry. */
#ifndef EL_ARENA_H
#define EL_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct arena {
  unsigned char *base; /* NULL: measure only */
  size_t used;
  size_t size;
  int failed; /* did not fit, or a size overflowed */
} arena;

/* n items of elem bytes, 64-byte aligned; NULL when measuring or when it does not fit (then failed is set). */
void *arena_take(arena *a, size_t n, size_t elem);

#endif
