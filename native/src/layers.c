/* SPDX-License-Identifier: Apache-2.0 */
#include "layers.h"

#include <math.h>
#include <string.h>

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

float *record_params(const el_net *net, const el_record *r) { return net->params + r->offset; }

static void load_row(const el_net *net, float *y, const el_samples *s, uint64_t row, size_t n) {
  if (s->x_type == EL_UINT8) {
    net->k->from_u8(y, (const uint8_t *)s->x + row * n, n);
  } else {
    memcpy(y, (const float *)s->x + row * n, n * sizeof *y);
  }
}

void load_batch(const el_net *net, float *x, const el_samples *s, uint64_t first, const uint64_t *order,
                uint32_t batch) {
  const el_record *r = net->records;
  const size_t n = r->fan_in_active;
  for (uint32_t b = 0; b < batch; b++) {
    float *y = x + b * n;
    load_row(net, y, s, order ? order[b] : first + b, n);
    if (r->op != EL_RESCALE) continue;
    const size_t pairs = r->params / 2;
    net->k->rescale(y, n, record_params(net, r), record_params(net, r) + pairs, pairs);
  }
}

static void dense_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch) {
  const float *weight = record_params(net, r), *bias = weight + (size_t)r->fan_in * r->stride;
  const int biased = r->flags & EL_FLAG_BIAS;
  for (uint32_t b = 0; biased && b < batch; b++) memcpy(y + (size_t)b * r->active, bias, r->active * sizeof *y);
  net_gemm(net, &(gemm_job){.m = batch,
                            .n = r->active,
                            .k = r->fan_in_active,
                            .alpha = 1,
                            .beta = biased ? 1 : 0,
                            .a = x,
                            .a_row = r->fan_in_active,
                            .a_col = 1,
                            .b = weight,
                            .b_row = r->stride,
                            .b_col = 1,
                            .c = y,
                            .ldc = r->active});
}

void dense_back(const el_net *net, float *dx, const el_record *r, const float *d, uint32_t batch) {
  net_gemm(net, &(gemm_job){.m = batch,
                            .n = r->fan_in_active,
                            .k = r->active,
                            .alpha = 1,
                            .a = d,
                            .a_row = r->active,
                            .a_col = 1,
                            .b = record_params(net, r),
                            .b_row = 1,
                            .b_col = r->stride,
                            .c = dx,
                            .ldc = r->fan_in_active});
}

static void activate(const el_net *net, float *y, const el_record *r, size_t n) {
  switch (r->op) {
    case EL_RELU: net->k->relu(y, n); break;
    case EL_LEAKY_RELU: net->k->leaky_relu(y, n, r->arg[0]); break;
    case EL_TANH: net->k->tanh(y, n); break;
    case EL_SIGMOID: net->k->sigmoid(y, n); break;
    default: break;
  }
}

/* Running statistics as one affine map: gain = gamma / deviation, shift = beta - mean gain. */
static void batchnorm_infer(const el_net *net, float *y, const el_record *r, uint32_t batch) {
  const size_t n = r->active, u = r->units;
  const float *gamma = record_params(net, r), *beta = gamma + u, *mean = beta + u, *variance = mean + u;
  for (uint32_t b = 0; b < batch; b++) {
    float *row = y + b * n;
    for (size_t i = 0; i < n; i++) {
      const float gain = gamma[i] / sqrtf(variance[i] + r->arg[0]);
      row[i] = (row[i] - mean[i]) * gain + beta[i];
    }
  }
}

void layer_infer(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch) {
  if (r->op == EL_DENSE) dense_forward(net, y, r, x, batch);
  if (r->op == EL_BATCHNORM) batchnorm_infer(net, y, r, batch);
  for (uint32_t b = 0; r->op == EL_SOFTMAX && b < batch; b++) net->k->softmax(y + (size_t)b * r->active, r->active);
  activate(net, y, r, (size_t)batch * r->active);
}

void batchnorm_move(const el_net *net, const node *at) {
  const el_record *r = at->record;
  float *running = record_params(net, r) + 2 * (size_t)r->units;
  const float *mean = at->statistics, *variance = mean + r->active;
  const float keep = r->arg[1], take = 1 - keep;
  for (uint32_t i = 0; i < r->active; i++) {
    running[i] = keep * running[i] + take * mean[i];
    running[r->units + i] = keep * running[r->units + i] + take * variance[i];
  }
}

/* Ioffe & Szegedy 2015, algorithm 1 */
static void batchnorm_forward(const el_net *net, const node *at, const float *x, uint32_t batch) {
  const el_record *r = at->record;
  const size_t n = r->active;
  float *mean = at->statistics, *variance = mean + n, *inverse = variance + n;
  float *ones = net->scratch.columns, *shift = ones + n;
  net->k->column_sum(mean, x, batch, n);
  net->k->scale(mean, 1.0f / (float)batch, n);
  for (size_t i = 0; i < n; i++) ones[i] = 1, shift[i] = -mean[i];
  net->k->column_affine(at->saved, x, ones, shift, batch, n);
  net->k->column_dot(variance, at->saved, at->saved, batch, n);
  net->k->scale(variance, 1.0f / (float)batch, n);
  for (size_t i = 0; i < n; i++) inverse[i] = 1 / sqrtf(variance[i] + r->arg[0]), shift[i] = 0;
  net->k->column_affine(at->saved, at->saved, inverse, shift, batch, n);
  const float *gamma = record_params(net, r);
  net->k->column_affine(at->y, at->saved, gamma, gamma + r->units, batch, n);
}

void dropout_apply(const el_net *net, float *y, const el_record *r, const group *g, uint32_t batch) {
  const dropout_stream stream = {
      .seed = net->config.rule.seed, .step = *g->updates, .block = r->block, .rate = r->arg[0]};
  net->k->dropout(y, (size_t)batch * r->active, &stream);
}

void layer_forward(const el_net *net, const group *g, const node *at, const float *x, uint32_t batch) {
  const el_record *r = at->record;
  const size_t n = (size_t)batch * r->active;
  if (r->op == EL_DENSE) dense_forward(net, at->y, r, x, batch);
  if (r->op == EL_BATCHNORM) batchnorm_forward(net, at, x, batch);
  if (r->op == EL_DENSE || r->op == EL_BATCHNORM || r->op == EL_RESCALE) return;
  if (at->y != x) memcpy(at->y, x, n * sizeof *x);
  activate(net, at->y, r, n);
  if (r->op == EL_DROPOUT) dropout_apply(net, at->y, r, g, batch);
}

/* d becomes gamma / deviation (d - mean d - xhat mean(d xhat)); columns keep [sum d, sum d xhat] for the update. */
static void batchnorm_back(const el_net *net, const node *at, float *d, uint32_t batch) {
  const size_t n = at->record->active;
  const float *gamma = record_params(net, at->record), *inverse = at->statistics + 2 * n;
  float *dot = net->scratch.columns, *sum = dot + n, *gain = sum + n;
  net->k->column_sum(sum, d, batch, n);
  net->k->column_dot(dot, d, at->saved, batch, n);
  for (size_t i = 0; i < n; i++) gain[i] = gamma[i] * inverse[i];
  net->k->batchnorm_back(d, at->saved, gain, sum, dot, batch, n);
}

void layer_back(const el_net *net, const group *g, const node *at, float *d, uint32_t batch) {
  const el_record *r = at->record;
  const size_t n = (size_t)batch * r->active;
  switch (r->op) {
    case EL_RELU: net->k->relu_back(d, at->y, n); break;
    case EL_LEAKY_RELU: net->k->leaky_relu_back(d, at->y, n, r->arg[0]); break;
    case EL_TANH: net->k->tanh_back(d, at->y, n); break;
    case EL_SIGMOID: net->k->sigmoid_back(d, at->y, n); break;
    case EL_BATCHNORM: batchnorm_back(net, at, d, batch); break;
    case EL_DROPOUT: dropout_apply(net, d, r, g, batch); break;
    default: break;
  }
}
