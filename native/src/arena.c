/* SPDX-License-Identifier: Apache-2.0 */
#include "arena.h"

enum { ALIGN = 64 };

void *arena_take(arena *a, size_t n, size_t elem) {
  if (elem && n > (SIZE_MAX - ALIGN) / elem) {
    a->failed = 1;
    return NULL;
  }
  const size_t bytes = (n * elem + ALIGN - 1) / ALIGN * ALIGN;
  if (bytes > SIZE_MAX - a->used || (a->base && a->used + bytes > a->size)) {
    a->failed = 1;
    return NULL;
  }
  void *at = a->base ? a->base + a->used : NULL;
  a->used += bytes;
  return at;
}
