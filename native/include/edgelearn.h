/* SPDX-License-Identifier: Apache-2.0
 * The whole public surface of the core: nets that learn layer by layer with forward passes only.
 * It allocates nothing, prints nothing and never exits; all memory is the caller's.
 * The text between the two marks is also the cffi declaration, so it holds plain declarations only. */
#ifndef EDGELEARN_H
#define EDGELEARN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cdef: begin */

/* Everything that can fail returns one of these; el_status_text() says it in words. */
typedef enum el_status {
  EL_OK = 0,
  EL_EINVAL = -1,     /* an argument or a record that the core does not accept */
  EL_ENOMEM = -2,     /* the caller's memory is smaller than el_net_size() asked for */
  EL_ENONFINITE = -3, /* NaN or infinity in a sample, a target, a loss or a gradient */
  EL_EFORMAT = -4,    /* not a model file of this version */
  EL_ELABEL = -5,     /* a label outside 0 .. classes-1 */
  EL_ETHREAD = -6,    /* a thread could not be started */
  EL_EBATCH = -7,     /* batch normalisation cannot learn from one sample */
  EL_ETOKEN = -8,     /* a token that is no whole number of the vocabulary */
  EL_ESTEPS = -9      /* a sequence that is padding alone */
} el_status;

/* Operations. The numbers are part of the model file: never renumber, only add. */
typedef enum el_op {
  EL_RESCALE = 1, /* y = x * weight + bias, per feature or with one pair; params: weight[k] bias[k] */
  EL_DENSE = 2,   /* y = x W + bias; params: W (fan_in, stride) row-major, then bias[stride] if flagged */
  /* params: gamma[n] beta[n], then mean[n] variance[n] once or more: window says which; arg: epsilon, momentum */
  EL_BATCHNORM = 3,
  EL_RELU = 4,
  EL_LEAKY_RELU = 5, /* arg: slope */
  EL_TANH = 6,
  EL_SIGMOID = 7,
  EL_DROPOUT = 8, /* arg: rate; acts on what is forwarded, never on what the local objective sees */
  EL_SOFTMAX = 9,
  EL_CONV = 10, /* params: K (kernel height, kernel width, fan_in / groups, stride), then bias[stride] if flagged */
  EL_MAXPOOL = 11,
  EL_AVGPOOL = 12, /* padding is not counted */
  EL_GLOBAL_AVGPOOL = 13,
  EL_LAYERNORM = 14, /* over the features of each position; params: gamma[n] beta[n]; arg: epsilon */
  EL_GELU = 15,      /* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
  /* Recurrent, from h[0] = 0, over a map of height 1; arg[1]: the padding, if flagged. params: W (fan_in, gates units),
   * V (units, gates units), then, if flagged, the bias b (gates units); the gates lie side by side in the order named.
   */
  EL_SIMPLE_RNN = 16, /* h = f(x W + h V + b); arg[0]: 0 tanh, 1 relu */
  EL_GRU = 17,        /* z, r, n; the bias is followed by that of h V, which the reset r multiplies as a whole (v3) */
  EL_LSTM = 18,       /* i, f, g, o */
  EL_EMBEDDING = 20,  /* y[t] = row x[t] of the table; the net's first layer; params: table (vocabulary, stride) */
  EL_POSITIONS = 21,  /* y = x + table; params: table (positions, units) */
  EL_ATTENTION = 22,  /* of each head [q k v] beside each other: y = softmax(q k^T / sqrt(head units)) v */
  EL_ADD = 23         /* y = the record before + record input[1] of the same block, or what the block reads */
} el_op;

/* The upper half of the flags of EL_CONV is its number of groups, of EL_ATTENTION that of heads. A nested product is
 * scaled by sqrt(fan_in / fan_in_active), so that it is of one size whatever the prefix of the inputs that it reads. */
typedef enum el_flag {
  EL_FLAG_BIAS = 1,
  EL_FLAG_SAME = 2,
  EL_FLAG_NESTED = 4,
  EL_FLAG_SEQUENCES = 8, /* recurrent: the output of every step goes on, not that of the last one */
  /* Recurrent, all of a net that begins with them and hands on the last step: steps in front of and behind a sequence
   * of which all values are the padding are none of it. It ends with the last step, and what comes before it is passed
   * over: states stay zero, and no loss is taken of it. */
  EL_FLAG_PADDED = 16
} el_flag;

/* One operation of a net, 64 bytes; a table of them is a net and is stored as such in model files.
 * Operations on maps (height, width, features) have the sides of their input in `size`, and count units and fan_in
 * in features of one position; behind a map, EL_DENSE reads all positions as one vector. A map may be read as a
 * sequence (1, positions). What is in use of a convolution with several groups is a prefix of its groups. */
typedef struct el_record {
  uint32_t op;            /* el_op */
  uint32_t block;         /* local objectives sit at the end of a block; EL_RESCALE belongs to block 0 */
  int32_t input[2];       /* records it reads; -1: the sample, or none */
  uint32_t units;         /* output features as stored */
  uint32_t active;        /* output features in use: a prefix of the stored ones */
  uint32_t fan_in;        /* input features as stored */
  uint32_t fan_in_active; /* input features in use */
  uint32_t stride;        /* leading dimension of the weight matrix */
  uint32_t offset;        /* its first float in the flat parameter vector */
  uint32_t params;        /* its number of floats there */
  uint32_t flags;         /* el_flag */
  float arg[2];
  uint32_t size; /* height << 16 | width of the input map; 0: a flat vector */
  /* kernel height << 24 | kernel width << 16 | stride height << 8 | stride width; EL_DENSE: positions of the map whose
   * features it reads a prefix of, each; EL_BATCHNORM: which of its statistics is in use */
  uint32_t window;
} el_record;

/* What a hidden block minimises over its own output h. Summed over units, averaged over the batch. Of a map, h is its
 * adaptive average over grid x grid positions, and units counts those; with grid 0 it is every position itself.
 * t is the label's code: a fixed random projection of the label, or of the target vector in regression. */
typedef enum el_objective {
  EL_UNTRAINED = 0,   /* nothing: hidden blocks stay as they are */
  EL_TP_L2 = 1,       /* sum (h-t)^2 / 2 */
  EL_TP_L1 = 2,       /* sum |h-t| */
  EL_TP_HUBER = 3,    /* Huber(h-t) */
  EL_TP_LINEAR = 4,   /* -<t,h>: direct random target projection */
  EL_TP_CE = 5,       /* cross-entropy of softmax(h P^T / (temperature sqrt(units))) */
  EL_READOUT = 6,     /* the net's own loss of h M / (temperature sqrt(units)), M learned */
  EL_READOUT_SIM = 7, /* (1 - similarity) EL_READOUT + similarity * distance of the similarities of h from labels' */
  EL_TP_CE_SIM = 8    /* the same with EL_TP_CE */
} el_objective;

/* Weights, over the steps of a sequence, of the objective of a recurrent block; they add up to 1. */
typedef enum el_timing {
  EL_EVERY = 0, /* all alike */
  EL_RAMP = 1,  /* proportional to the number of the step */
  EL_LAST = 2,  /* the last step only */
  EL_LATE = 3   /* proportional to the square of the number of the step */
} el_timing;

typedef enum el_codes_kind {
  EL_CODES_GAUSSIAN = 0,
  EL_CODES_UNIFORM = 1,    /* in (-1, 1) */
  EL_CODES_SIGN = 2,       /* -1 or 1 */
  EL_CODES_HE_UNIFORM = 3, /* in (-b, b), b = sqrt(6 / units) */
  EL_CODES_PAIRED = 4      /* Gaussian, unit 2 i + 1 with the opposite value of unit 2 i: codes that sum to zero */
} el_codes_kind;

/* The loss of the output layer, on its own output. */
typedef enum el_loss { EL_CROSS_ENTROPY = 0, EL_MSE = 1, EL_HUBER = 2 } el_loss;

typedef struct el_rule {
  uint32_t objective; /* el_objective of the hidden blocks */
  uint32_t codes;     /* el_codes_kind */
  uint32_t loss;      /* el_loss of the output */
  uint32_t group;     /* consecutive blocks that share one objective; 1: none, all: backpropagation */
  uint32_t targets;   /* classes, or width of the target vector */
  float scale;        /* of the codes */
  float temperature;  /* EL_TP_CE, EL_READOUT */
  float huber;        /* where the Huber losses turn linear */
  uint32_t grid;      /* positions along each side that the objective sees of a map; 0: all */
  uint32_t frozen;    /* 1: hidden blocks that end in a map stay as initialised */
  float similarity;   /* share of the similarity term */
  float clip;         /* most that the norm of a group's gradient may be; 0: no limit */
  uint32_t timing;    /* el_timing */
  uint32_t window;    /* steps that an error goes back through in recurrent groups; 1: none, all: through time */
  uint32_t traces;    /* 1: with window 1, gated cells keep exact traces of what earlier steps did to their state */
  uint64_t seed;      /* of codes, dropout and read-outs */
} el_rule;

typedef enum el_optimizer_kind { EL_SGD = 0, EL_MOMENTUM = 1, EL_ADAM = 2 } el_optimizer_kind;

typedef struct el_optimizer {
  uint32_t kind;
  float momentum; /* EL_MOMENTUM: v = momentum v + g, w -= lr v */
  float beta1, beta2, epsilon;
} el_optimizer;

typedef enum el_isa { EL_ISA_AUTO = 0, EL_ISA_SCALAR = 1, EL_ISA_AVX2 = 2, EL_ISA_AVX512 = 3, EL_ISA_NEON = 4 } el_isa;

/* Which levels learn from a batch: one that is drawn, the same for all blocks (Kudugunta et al. 2023), or each block's
 * own (Cai et al. 2020), or every level, one after the other (after Yu et al. 2019, Slimmable neural networks). */
typedef enum el_sampling { EL_NEST_SAME, EL_NEST_INDEPENDENT, EL_NEST_EVERY } el_sampling;

/* Nested training. Level i has the prefix of units[i * records + r] units in record r, where that is a product, an
 * embedding or recurrent, of every gate; the last level is the net as placed. Hidden blocks that learn by scores and
 * end in another width at each level have a loss for each level up to the one that learns. What is added, and what
 * positions belong to, has one width. Every level that learns from a batch is an update of its own; the statistics of a
 * step are those of the widest. */
typedef struct el_nest {
  uint32_t n_levels;     /* 0: none */
  uint32_t sampling;     /* el_sampling */
  uint32_t statistics;   /* which of EL_BATCHNORM's the last level has; the level below has the next, and so on */
  const uint32_t *units; /* (n_levels, records); read by el_net_init() only */
  const float *chances;  /* (n_levels), adding up to 1 */
} el_nest;

typedef struct el_config {
  el_rule rule;
  el_optimizer optimizer;
  uint32_t batch;       /* largest batch */
  uint32_t train;       /* 0: forward only */
  uint32_t keep;        /* 1: room for a copy of what is trained, for el_net_keep() and el_net_revert() */
  uint32_t threads;     /* workers, this thread included; results do not depend on it */
  uint32_t isa;         /* el_isa */
  uint32_t micro;       /* samples that go through a group at once; its gradients are added up. 0: the whole batch */
  uint32_t first_group; /* only n_groups groups from here on will be trained; the others get no memory for it */
  uint32_t n_groups;    /* 0: all that follow */
  uint32_t streams;     /* 1: el_net_stream_step() will be called, for which traces are kept from call to call */
  uint32_t n_rates;     /* of rates; 0: all are 1 */
  const float *rates;   /* factor of the learning rate of each block; read by el_net_init() only */
  const float *weights; /* (rule.targets) weight of each class in every loss; NULL: all are 1. Read as rates is */
  el_nest nest;
} el_config;

/* Bytes of a net's memory, by use. The sum of all but arena, rounded up per item, is arena. */
typedef struct el_sizes {
  uint64_t arena;       /* what el_net_init() needs */
  uint64_t handle;      /* the net itself and its copy of the records */
  uint64_t activations; /* one group's input, output and errors */
  uint64_t state;       /* read-outs, optimizer moments and the kept parameters */
  uint64_t scratch;     /* codes, logits, gradient tiles, packing panels */
} el_sizes;

typedef enum el_type { EL_FLOAT32 = 0, EL_UINT8 = 1, EL_FLOAT16 = 2 } el_type;

/* Samples, or what groups before `group` made of them: then x * scale + shift is what the group reads. */
typedef struct el_samples {
  const void *x;   /* (n, features) row-major */
  uint32_t x_type; /* el_type */
  uint32_t group;  /* group that x enters; 0: the net's own input */
  uint32_t pairs;  /* of scale and shift; feature i uses pair i mod pairs. 0: none */
  const float *scale;
  const float *shift;
  const int32_t *labels; /* (n), classification */
  const float *targets;  /* (n, rule.targets), regression */
  uint64_t n;
} el_samples;

typedef enum el_schedule_kind { EL_CONSTANT = 0, EL_COSINE = 1, EL_STEP = 2 } el_schedule_kind;

typedef struct el_schedule {
  uint32_t kind;
  float lr;        /* peak rate */
  float floor;     /* EL_COSINE ends here */
  float gamma;     /* EL_STEP: factor every `every` steps */
  uint64_t warmup; /* steps of linear rise to lr */
  uint64_t total;  /* EL_COSINE: steps of the whole run, warm-up included */
  uint64_t every;
} el_schedule;

typedef struct el_run {
  uint64_t seed;  /* of the order of the samples */
  uint64_t first; /* first step of this call, counted from the start of the run */
  uint64_t steps; /* steps of this call */
  uint32_t batch;
  uint32_t shuffle;     /* 0: in the order given */
  uint32_t first_group; /* groups that are updated, both ends included; later ones are not run */
  uint32_t last_group;
  el_schedule schedule;
} el_run;

typedef struct el_stats {
  double loss; /* sum over samples of the last trained objective, before the update */
  uint64_t samples;
  uint64_t correct; /* samples whose largest output was the label, when the output was trained */
} el_stats;

typedef struct el_net el_net;

const char *el_status_text(el_status status);

/* The instruction set that EL_ISA_AUTO means here; whether one can run here; its name. */
uint32_t el_isa_best(void);
int el_isa_available(uint32_t isa);
const char *el_isa_name(uint32_t isa);

/* Runs `rounds` rounds of independent multiply-adds in registers and returns the floating-point operations done:
 * timed, the peak that products can be held against. 0 where the set cannot run. */
uint64_t el_peak(uint32_t isa, uint64_t rounds);

/* The memory of a net, by one dry walk over the records: the same walk that el_net_init() places with. */
el_status el_net_size(const el_record *records, uint32_t n_records, const el_config *config, el_sizes *sizes);

/* Place a net in mem (64-byte aligned, at least el_net_size().arena bytes). mem and params stay the caller's and
 * must outlive the net; params (n_params floats) is read by forward and written by step and fit.
 * State starts afresh: moments zero, read-outs zero. */
el_status el_net_init(el_net **net, void *mem, size_t size, const el_record *records, uint32_t n_records, float *params,
                      uint64_t n_params, const el_config *config);

/* Ends the net's threads. The memory is the caller's again. */
void el_net_close(el_net *net);

/* Outputs (n, units of the last record) of any number of samples; labels and targets are ignored. */
el_status el_net_forward(el_net *net, const el_samples *samples, float *out);

/* The same behind group `last`: (n, features that the next group reads). */
el_status el_net_outputs(el_net *net, const el_samples *samples, uint32_t last, float *out);

/* Features of one sample in front of a group; behind the last one for group == el_net_groups(). */
uint64_t el_net_features(const el_net *net, uint32_t group);

/* One step on samples->n <= batch samples. After any error but EL_ENONFINITE no weight has changed; after that one,
 * blocks before the failing one may have taken their (finite) step, unless a sample or target was the reason. */
el_status el_net_step(el_net *net, const el_samples *samples, float lr, el_stats *stats);

/* run->steps steps over shuffled mini-batches. All samples and labels are checked before the first step of an epoch,
 * and each batch before it is learned. A last batch of one sample is passed over if the net normalises by batches.
 * stats are added to, so that calls can be chained. */
el_status el_net_fit(el_net *net, const el_samples *samples, const el_run *run, el_stats *stats);

/* From now on answer as the submodel with those levels of config.nest (one per block), until the next training or
 * el_net_resize(); NULL: as placed. A convolution with several groups that opens a block has the level of the block
 * before it. Streams begin anew. */
el_status el_net_resize(el_net *net, const uint32_t *levels);

/* The next `steps` steps of config.batch streams, one row of samples each: the outputs (batch, units) behind them, and
 * one step of learning by them. Recurrent layers, which come first in the net and hand on their last step, go on from
 * where the last of these calls left them; el_net_reset() takes one stream back to its beginning, and every other call
 * takes all of them there. */
el_status el_net_stream(el_net *net, const el_samples *samples, uint32_t steps, float *out);
el_status el_net_stream_step(el_net *net, const el_samples *samples, uint32_t steps, float lr, el_stats *stats);
el_status el_net_reset(el_net *net, uint32_t stream);

/* Number of groups of blocks under the net's rule. */
uint32_t el_net_groups(const el_net *net);

/* Read-outs, moments and update counts: what must be kept, beside the parameters, to go on to the bit. */
void *el_net_state(el_net *net, uint64_t *bytes);

/* Copy aside what training may change, at the widest; bring that copy back. EL_EINVAL without config.keep. */
el_status el_net_keep(el_net *net);
el_status el_net_revert(el_net *net);

/* Learning rate of a step, counted from 0. */
float el_schedule_rate(const el_schedule *schedule, uint64_t step);

/* The code of one class (or target) for the first n units of a block, regenerated from the seed: nothing is stored. */
void el_codes(const el_rule *rule, uint32_t block, uint32_t target, uint32_t units, float *out);

/* Where sample `position` of an epoch stands in the data: a permutation of 0 .. n-1 that takes no memory. */
uint64_t el_shuffle(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t position);

/* Records and parameters of a model file in memory, in place: nothing is copied. Checks structure, not the digest. */
el_status el_model_open(const void *file, size_t size, const el_record **records, uint32_t *n_records,
                        const float **params, uint64_t *n_params);

/* cdef: end */

#ifdef __cplusplus
}
#endif
#endif
