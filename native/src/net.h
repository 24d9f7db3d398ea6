/* SPDX-License-Identifier: Apache-2.0
 * A placed net, as the files of the core see it. Sizes: B batch, I inputs, U units, K classes or targets. */
#ifndef EL_NET_H
#define EL_NET_H

#include "arena.h"
#include "edgelearn.h"
#include "geometry.h"
#include "kernels/kernels.h"
#include "pool.h"
#include "segments.h"

/* One record in place. M is the micro-batch: the samples that go through a group at once. */
typedef struct node {
  const el_record *record;
  float *y;          /* (M,output) its producer's buffer where it may work in place */
  float *saved;      /* (M,output) normalisation: normalised input; addition: error that goes round the branch */
  float *statistics; /* batch normalisation: (3,U) mean, variance, 1/deviation; layer normalisation: 1/deviation */
  segment widest[SEGMENTS]; /* what is trained at the widest that the net may be */
  float *moments[2];        /* of that, without gaps, or NULL */
  float *gradient;          /* where gradients are added up over micro-batches or limited, else NULL */
} node;

/* Consecutive blocks with one objective. Nothing but the output leaves a group. */
typedef struct group {
  uint32_t first, last; /* records; a trailing dropout and softmax are left out */
  uint32_t end;         /* the last one with them */
  uint32_t block;       /* of the last record: names the codes */
  const el_record *dropout;
  size_t in, out;       /* features; out of one step where all of it is stepped */
  sides map, cells;     /* of the output, and as its objective sees it */
  size_t seen;          /* features that the objective sees: cells x channels */
  size_t coded;         /* the same of all units that are stored: what codes are made for */
  int by_channel;       /* seen channel by channel, so that a prefix of channels is one of features; else by cell */
  int trained;          /* runs in training; else only as in use */
  int learns;           /* and has something to learn */
  int stepped;          /* runs step by step, at least up to record `tail` */
  uint32_t tail;        /* its first record that waits for the last step; 0: none does */
  float *x;             /* (B,in) */
  float *h;             /* (B,out) */
  float *y;             /* (M,out): h itself where M is B */
  float *error, *other; /* where the error of y goes, and those of earlier outputs in turn */
  float *readout;       /* (seen,K) or NULL */
  float *moments[2];    /* of the read-out */
  float *sum;           /* gradients of the group, packed record after record, or NULL */
  size_t sums;          /* floats of it, the read-out's excluded */
  float *readout_sum;   /* (seen,K) or NULL */
  uint32_t *updates;    /* steps taken */
  uint64_t from;        /* sample of the batch that the micro-batch at hand begins with */
} group;

/* Where the steps of sequences come from; no samples: from the input of the group that they enter. */
typedef struct feed {
  const el_samples *samples;
  const uint64_t *order; /* places in the data, or NULL: from sample `first` on */
  uint64_t first;
  uint32_t steps; /* of each sample */
  int goes_on;    /* from the state that the last call left */
} feed;

/* The samples of one step of a run, in its order. */
typedef struct sample_order {
  uint64_t *index; /* (B) */
  int32_t *labels; /* (B) */
  float *targets;  /* (B,K), regression only */
} sample_order;

typedef struct scratch {
  float *d, *d2;      /* errors, in turn; d2 only where one goes through a layer */
  float *q, *dq;      /* (M, most seen) what objectives see of maps, and its error */
  float *codes;       /* (K, most seen) */
  float *logits;      /* (M,K), of a nested net once for each level */
  float *v, *dv;      /* (M, most seen) what is compared, made unit vectors, and its error */
  float *alike;       /* (M,M) similarities of samples, and (M) lengths */
  float *columns;     /* 4 x width: bias gradients, normalisation statistics */
  float *left;        /* per thread: width, error not yet given to a maximum */
  float *tiles;       /* per thread: gradient tile */
  float *packs;       /* per thread: GEMM_PACK floats */
  float *patches;     /* per thread: a tile of patches */
  float *weights;     /* of one convolution, those in use next to each other */
  float *scores;      /* per thread: scores of one head of attention, and in training their error */
  float *gradient;    /* of one convolution or table */
  size_t width;       /* most features of a position */
  size_t tile, patch; /* floats of one gradient tile and of one tile of patches */
  size_t score;       /* floats of one thread's scores */
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
  struct sequence *sequence; /* what runs step by step, or NULL */
  feed feed;
  el_record *records;
  float *region; /* activations */
  size_t region_floats;
  float *held;      /* (B,features) in inference: what an addition will need again; inside the region */
  float *rates;     /* per block, or NULL */
  el_nest nest;     /* in the net's own memory */
  uint32_t *levels; /* per block: those in use, or NULL */
  float *weights;   /* per class, or NULL */
  float *kept;      /* copy of what is trained, or NULL */
  void *state;
  size_t state_bytes;
};

/* What one step passes along: the samples at hand, the rate and what it reports. */
typedef struct step {
  uint32_t batch;
  const int32_t *labels;
  const float *targets; /* (B,K) */
  const float *weights; /* (B) of the samples at the step of a sequence at hand, or NULL: all are 1 */
  float lr;
  el_stats *stats;
} step;

/* Learned floats of a record. */
static inline float *record_params(const el_net *net, const el_record *r) { return net->params + r->offset; }

/* Whether the objective sees another arrangement of numbers than the output. */
static inline int is_viewed(const group *g) { return g->seen != g->out || (g->by_channel && positions(g->cells) > 1); }

/* Samples of a micro-batch. */
static inline uint32_t micro_of(const el_config *c) { return c->micro && c->micro < c->batch ? c->micro : c->batch; }

/* Whether the gradients of a step are collected before a weight moves. */
static inline int collects(const el_config *c) { return micro_of(c) < c->batch || c->rule.clip > 0; }

enum { LINE = 16 }; /* floats of a cache line */

static inline size_t lined(size_t floats) { return (floats + LINE - 1) / LINE * LINE; }

#endif
