/* SPDX-License-Identifier: Apache-2.0
 * Samples into steps: checks, order, learning rate. */
#include <math.h>

#include "embedding.h"
#include "learn.h"
#include "nest.h"
#include "philox.h"
#include "samples.h"
#include "sequence.h"

static uint32_t mix(uint32_t x) {
  x = (x ^ x >> 16) * 0x85EBCA6Bu;
  x = (x ^ x >> 13) * 0xC2B2AE35u;
  return x ^ x >> 16;
}

typedef struct shuffle_keys {
  uint32_t round[6], half;
} shuffle_keys;

static shuffle_keys keys_of(uint64_t seed, uint64_t epoch, uint64_t n) {
  shuffle_keys k = {.half = 1};
  while (k.half < 31 && (uint64_t)1 << 2 * k.half < n) k.half++;
  for (uint32_t r = 0; r < 6; r++) {
    k.round[r] = philox(seed, r >> 2, (uint32_t)epoch, (uint32_t)(epoch >> 32), STREAM_SHUFFLE).w[r & 3];
  }
  return k;
}

/* A Feistel network is a permutation of 0 .. 4^half - 1; walking its cycle until inside makes one of 0 .. n-1. */
static uint64_t permute(const shuffle_keys *k, uint64_t n, uint64_t value) {
  const uint32_t mask = (uint32_t)(((uint64_t)1 << k->half) - 1);
  do {
    uint32_t left = (uint32_t)(value >> k->half), right = (uint32_t)value & mask;
    for (uint32_t r = 0; r < 6; r++) {
      const uint32_t next = left ^ (mix(right ^ k->round[r]) & mask);
      left = right;
      right = next;
    }
    value = (uint64_t)left << k->half | right;
  } while (value >= n);
  return value;
}

uint64_t el_shuffle(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t position) {
  const shuffle_keys k = keys_of(seed, epoch, n);
  return permute(&k, n, position);
}

float el_schedule_rate(const el_schedule *s, uint64_t t) {
  if (t < s->warmup) return s->lr * (float)(t + 1) / (float)s->warmup;
  const double past = (double)(t - s->warmup);
  if (s->kind == EL_COSINE) {
    const double span = s->total > s->warmup ? (double)(s->total - s->warmup) : 1;
    const double turn = past < span ? past / span : 1;
    return (float)(s->floor + ((double)s->lr - s->floor) * 0.5 * (1 + cos(3.14159265358979323846 * turn)));
  }
  if (s->kind == EL_STEP)
    return (float)(s->lr * pow((double)s->gamma, floor(past / (double)(s->every ? s->every : 1))));
  return s->lr;
}

static el_status labels_check(const el_net *net, const el_samples *s) {
  if (!s->labels) return EL_EINVAL;
  for (uint64_t i = 0; i < s->n; i++) {
    if (s->labels[i] < 0 || (uint32_t)s->labels[i] >= net->config.rule.targets) return EL_ELABEL;
  }
  return EL_OK;
}

el_status answers_check(const el_net *net, const el_samples *s) {
  if (net->config.rule.loss == EL_CROSS_ENTROPY) return labels_check(net, s);
  if (!s->targets) return EL_EINVAL;
  return net->k->finite(s->targets, s->n * net->config.rule.targets) ? EL_OK : EL_ENONFINITE;
}

static el_status samples_check(el_net *net, const el_samples *s) {
  if (!s->x || !s->n || s->x_type > EL_FLOAT16 || s->group >= net->n_groups || !net->config.train) return EL_EINVAL;
  if (!pairs_fit(net, s) || (net->nest.n_levels && s->group)) return EL_EINVAL;
  const size_t in = net->groups[s->group].in;
  if (s->x_type == EL_FLOAT32 && !net->k->finite(s->x, s->n * in)) return EL_ENONFINITE;
  if (tokens_check_all(net, net->groups[0].x, s)) return EL_ETOKEN;
  return steps_check_all(net, s) ? EL_ESTEPS : answers_check(net, s);
}

/* Batch statistics of one value say nothing: a batch with such a last slice cannot be learned from. */
static int is_lonely(const el_net *net, uint64_t batch) {
  const uint32_t micro = micro_of(&net->config);
  if (batch % micro != 1 && micro != 1) return 0;
  for (uint32_t i = 0; i < net->n_nodes; i++) {
    const el_record *r = net->records + i;
    if (r->op == EL_BATCHNORM && positions(sides_in(r)) == 1) return 1;
  }
  return 0;
}

void stats_add(el_stats *stats, const el_stats *one) {
  stats->loss += one->loss;
  stats->samples += one->samples;
  stats->correct += one->correct;
}

/* What was checked at the start of the epoch may have changed since; a batch is cheap to look at again. */
static el_status batch_check(const el_net *net, const step *now) {
  const size_t k = net->config.rule.targets;
  if (net->config.rule.loss != EL_CROSS_ENTROPY) {
    return net->k->finite(now->targets, now->batch * k) ? EL_OK : EL_ENONFINITE;
  }
  for (uint32_t b = 0; b < now->batch; b++) {
    if (now->labels[b] < 0 || (size_t)now->labels[b] >= k) return EL_ELABEL;
  }
  return EL_OK;
}

/* One batch through the groups, at every level that learns from it; the narrower ones leave nothing of it. */
static el_status train_levels(el_net *net, const step *s, const el_samples *from, const uint64_t *index, uint32_t first,
                              uint32_t last) {
  el_stats unused = {0};
  step narrower = *s;
  narrower.stats = &unused;
  el_status status = EL_OK;
  const int is_every = net->nest.sampling == EL_NEST_EVERY;
  for (uint32_t level = 0; is_every && level + 1 < net->nest.n_levels && !status; level++) {
    nest_level(net, level);
    status = train_batch(net, &narrower, from->group, first, last);
    if (!status) status = take_batch(net, net->groups[from->group].x, from, 0, index, s->batch);
  }
  if (is_every) nest_whole(net);
  return status ? status : train_batch(net, s, from->group, first, last);
}

el_status el_net_step(el_net *net, const el_samples *s, float lr, el_stats *stats) {
  if (!net || !s || !stats || s->n > net->config.batch || !isfinite(lr)) return EL_EINVAL;
  const el_status status = samples_check(net, s);
  if (status) return status;
  if (is_lonely(net, s->n)) return EL_EBATCH;
  el_stats one = {.samples = s->n};
  const step now = {.batch = (uint32_t)s->n, .labels = s->labels, .targets = s->targets, .lr = lr, .stats = &one};
  const el_status taken = take_batch(net, net->groups[s->group].x, s, 0, NULL, now.batch);
  if (taken) return taken;
  uint32_t first = s->group, last = net->n_groups - 1;
  while (first < last && !net->groups[first].trained) first++;
  while (last > first && !net->groups[last].trained) last--;
  nest_draw(net, net->config.rule.seed, *net->groups[first].updates);
  const el_status learned = net->groups[first].trained ? train_levels(net, &now, s, NULL, first, last) : EL_EINVAL;
  nest_whole(net);
  if (!learned) stats_add(stats, &one);
  return learned;
}

/* The batch of one step of a run, gathered into the net; its labels and targets into the net's order buffers. */
static el_status gather(el_net *net, const el_samples *s, const el_run *run, uint64_t t, uint64_t steps,
                        uint32_t *taken) {
  const uint64_t epoch = t / steps, start = t % steps * run->batch, left = s->n - start;
  const uint32_t batch = left < run->batch ? (uint32_t)left : run->batch;
  const shuffle_keys keys = keys_of(run->seed, epoch, s->n);
  const size_t k = net->config.rule.targets;
  sample_order *o = &net->scratch.order;
  for (uint32_t b = 0; b < batch; b++) {
    const uint64_t at = run->shuffle ? permute(&keys, s->n, start + b) : start + b;
    o->index[b] = at;
    if (s->labels) o->labels[b] = s->labels[at];
    for (size_t i = 0; o->targets && i < k; i++) o->targets[b * k + i] = s->targets[at * k + i];
  }
  *taken = batch;
  return take_batch(net, net->groups[s->group].x, s, 0, o->index, batch);
}

static el_status run_check(const el_net *net, const el_samples *s, const el_run *run) {
  if (!net->config.train || !run->batch || run->batch > net->config.batch || !s->n) return EL_EINVAL;
  if (run->first_group >= net->n_groups || run->first_group > run->last_group) return EL_EINVAL;
  if (run->last_group >= net->n_groups || s->group > run->first_group) return EL_EINVAL;
  for (uint32_t i = run->first_group; i <= run->last_group; i++) {
    if (!net->groups[i].trained) return EL_EINVAL;
  }
  if (!s->x || !(net->config.rule.loss == EL_CROSS_ENTROPY ? (const void *)s->labels : s->targets)) return EL_EINVAL;
  return is_lonely(net, s->n < run->batch ? s->n : run->batch) ? EL_EBATCH : EL_OK;
}

static el_status run_step(el_net *net, const el_samples *s, const el_run *run, uint64_t t, el_stats *stats) {
  const uint64_t steps = s->n / run->batch + (s->n % run->batch != 0);
  el_status status = t % steps == 0 ? samples_check(net, s) : EL_OK;
  if (status) return status;
  el_stats one = {0};
  step now = {.labels = net->scratch.order.labels, .targets = net->scratch.order.targets, .stats = &one};
  status = gather(net, s, run, t, steps, &now.batch);
  if (status) return status;
  one.samples = now.batch;
  now.lr = el_schedule_rate(&run->schedule, t);
  nest_draw(net, run->seed, t);
  if (is_lonely(net, now.batch)) return EL_OK;
  status = batch_check(net, &now);
  if (!status) status = train_levels(net, &now, s, net->scratch.order.index, run->first_group, run->last_group);
  if (!status) stats_add(stats, &one);
  return status;
}

el_status el_net_fit(el_net *net, const el_samples *s, const el_run *run, el_stats *stats) {
  if (!net || !s || !run || !stats) return EL_EINVAL;
  el_status status = run_check(net, s, run);
  for (uint64_t i = 0; i < run->steps && !status; i++) status = run_step(net, s, run, run->first + i, stats);
  nest_whole(net);
  return status;
}
