/* SPDX-License-Identifier: Apache-2.0 */
#include "product.h"

enum { WORTH_SHARING = 1 << 18 }; /* multiply-adds, about ten microseconds of work */

typedef struct shared_gemm {
  const el_net *net;
  const gemm_job *job;
} shared_gemm;

/* Splits the longer side of C; elements of C are independent of each other. */
static void gemm_part(void *argument, uint32_t part, uint32_t parts) {
  const shared_gemm *s = argument;
  gemm_job g = *s->job;
  const int by_rows = g.m > g.n;
  const size_t side = by_rows ? g.m : g.n, unit = by_rows ? 8 : 32, units = (side + unit - 1) / unit;
  const size_t from = units * part / parts * unit, to = units * (part + 1) / parts * unit;
  const size_t end = to < side ? to : side;
  if (from >= end) return;
  g.a += by_rows ? from * g.a_row : 0;
  g.b += by_rows ? 0 : from * g.b_col;
  g.c += by_rows ? from * g.ldc : from;
  *(by_rows ? &g.m : &g.n) = end - from;
  s->net->k->gemm(&g, s->net->scratch.packs + (size_t)part * GEMM_PACK);
}

void net_gemm(const el_net *net, const gemm_job *job) {
  shared_gemm shared = {net, job};
  pool_run(job->m * job->n * job->k < WORTH_SHARING ? NULL : net->pool, gemm_part, &shared);
}
