/* SPDX-License-Identifier: Apache-2.0
 * A placed net, as the files of the core see it. Sizes: B batch, I inputs, U units, K classes or targets. */
#ifndef EL_NET_H
#define EL_NET_H

#include "arena.h"
#include "edgelearn.h"
#include "kernels/kernels.h"
#include "pool.h"

/* One record in place. */
typedef struct node {
  const el_record *record;
  float *y;          /* (B,U) output; its producer's buffer where it may work in place */
  float *saved;      /* batch normalisation: (B,U) normalised input */
  float *statistics; /* and (3,U) mean, variance, 1/deviation of the batch */
  float *moments[2]; /* record->params floats each, or NULL */
} node;

/* Consecutive blocks with one objective. Nothing but the output leaves a group. */
typedef struct group {
  uint32_t first, last; /* records; a trailing dropout and softmax are left out */
  uint32_t block;       /* of the last record: names the codes */
  const el_record *dropout;
  uint32_t in, out;  /* features */
  float *x;          /* (B,in) */
  float *h;          /* (B,out) */
  float *readout;    /* (out,K) or NULL */
  float *moments[2]; /* of the read-out */
  uint32_t *updates; /* steps taken */
} group;

/* The samples of one step of a run, in its order. */
typedef struct sample_order {
  uint64_t *index; /* (B) */
  int32_t *labels; /* (B) */
  float *targets;  /* (B,K), regression only */
} sample_order;

typedef struct scratch {
  float *d, *d2;  /* (B, widest) errors; d2 only in groups of several layers */
  float *codes;   /* (K, widest hidden) */
  float *logits;  /* (B,K) */
  float *columns; /* 4 x widest: bias gradients, normalisation statistics */
  float *tiles;   /* per thread: gradient tile */
  float *packs;   /* per thread: GEMM_PACK floats */
  size_t tile;    /* floats of one gradient tile */
  sample_order order;
} scratch;

struct el_net {
  const kernel_table *k;
  pool *pool;
  el_config config;
  float *params;
  uint32_t n_nodes, n_groups;
  node *nodes;
  group *groups;
  scratch scratch;
  el_record *records;
  float *region; /* activations */
  size_t region_floats;
  float *kept; /* copy of the parameters, or NULL */
  size_t n_params;
  void *state;
  size_t state_bytes;
};

/* What one step passes along: the batch, the rate and what it reports. */
typedef struct step {
  uint32_t batch;
  const int32_t *labels;
  const float *targets; /* (B,K) */
  float lr;
  el_stats *stats;
} step;

#endif
