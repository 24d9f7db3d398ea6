/* SPDX-License-Identifier: Apache-2.0
 * A few threads that run one job in parts. Which thread runs which part is fixed, and parts never share an output,
 * so that results do not depend on timing. */
#ifndef EL_POOL_H
#define EL_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "edgelearn.h"

enum { POOL_MAX = 16 };

typedef struct pool pool;

/* part: 0 .. parts-1, also the index of the thread that runs it */
typedef void (*pool_part)(void *job, uint32_t part, uint32_t parts);

size_t pool_size(void);

/* Starts threads - 1 threads; the caller is the last worker. mem: pool_size() bytes. */
el_status pool_start(pool **p, void *mem, uint32_t threads);

/* Runs the job once per thread and returns when all parts are done; a NULL pool runs it in one part. */
void pool_run(pool *p, pool_part run, void *job);

void pool_stop(pool *p);

#endif
