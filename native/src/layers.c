/* SPDX-License-Identifier: Apache-2.0 */
#include "layers.h"

#include <math.h>
#include <string.h>

#include "attention.h"
#include "conv.h"
#include "embedding.h"
#include "pooling.h"
#include "product.h"

static void dense_forward(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch) {
  const row_runs runs = runs_of(r);
  const float *weight = record_params(net, r), *bias = weight + bias_at(r);
  const int biased = r->flags & EL_FLAG_BIAS;
  for (uint32_t b = 0; biased && b < batch; b++) memcpy(y + (size_t)b * r->active, bias, r->active * sizeof *y);
  for (size_t i = 0; i < runs.count; i++, x += runs.active, weight += runs.stored * r->stride) {
    net_gemm(net, &(gemm_job){.m = batch,
                              .n = r->active,
                              .k = runs.active,
                              .alpha = product_gain(r),
                              .beta = biased || i ? 1 : 0,
                              .a = x,
                              .a_row = r->fan_in_active,
                              .a_col = 1,
                              .b = weight,
                              .b_row = r->stride,
                              .b_col = 1,
                              .c = y,
                              .ldc = r->active});
  }
}

static void dense_back(const el_net *net, float *dx, const el_record *r, const float *d, uint32_t batch) {
  const row_runs runs = runs_of(r);
  const float *weight = record_params(net, r);
  for (size_t i = 0; i < runs.count; i++, dx += runs.active, weight += runs.stored * r->stride) {
    net_gemm(net, &(gemm_job){.m = batch,
                              .n = runs.active,
                              .k = r->active,
                              .alpha = product_gain(r),
                              .a = d,
                              .a_row = r->active,
                              .a_col = 1,
                              .b = weight,
                              .b_row = 1,
                              .b_col = r->stride,
                              .c = dx,
                              .ldc = r->fan_in_active});
  }
}

static void activate(const el_net *net, float *y, const el_record *r, size_t n) {
  switch (r->op) {
    case EL_RELU: net->k->relu(y, n); break;
    case EL_LEAKY_RELU: net->k->leaky_relu(y, n, r->arg[0]); break;
    case EL_TANH: net->k->tanh(y, n); break;
    case EL_SIGMOID: net->k->sigmoid(y, n); break;
    case EL_GELU: net->k->gelu(y, n); break;
    default: break;
  }
}

/* Mean and variance, those of the width in use. */
static float *running_statistics(const el_net *net, const el_record *r) {
  return record_params(net, r) + 2 * (size_t)r->units * (1 + r->window);
}

/* Running statistics as one affine map: gain = gamma / deviation, shift = beta - mean gain. */
static void batchnorm_infer(const el_net *net, float *y, const el_record *r, size_t rows) {
  const size_t n = r->active, u = r->units;
  const float *gamma = record_params(net, r), *beta = gamma + u;
  const float *mean = running_statistics(net, r), *variance = mean + u;
  float *gain = net->scratch.columns, *shift = gain + n;
  for (size_t i = 0; i < n; i++) {
    gain[i] = gamma[i] / sqrtf(variance[i] + r->arg[0]);
    shift[i] = beta[i] - mean[i] * gain[i];
  }
  net->k->rescale(y, rows * n, gain, shift, n);
}

static affine_rows layernorm_affine(const el_net *net, const el_record *r) {
  const float *gamma = record_params(net, r);
  return (affine_rows){.gamma = gamma, .beta = gamma + r->units};
}

/* In place: the normalised input is not needed afterwards, so it goes where the output will. */
static void layernorm_infer(const el_net *net, float *y, const el_record *r, size_t rows) {
  const affine_rows a = layernorm_affine(net, r);
  for (size_t i = 0; i < rows; i++, y += r->active) net->k->layernorm(y, y, y, &a, r->active, r->arg[0]);
}

static size_t rows_of(const el_record *r, uint32_t batch) { return batch * positions(sides_out(r)); }

void layer_infer(const el_net *net, float *y, const el_record *r, const float *x, uint32_t batch) {
  const size_t rows = rows_of(r, batch);
  switch (r->op) {
    case EL_DENSE: dense_forward(net, y, r, x, batch); break;
    case EL_CONV: conv_forward(net, y, r, x, batch); break;
    case EL_MAXPOOL:
    case EL_AVGPOOL:
    case EL_GLOBAL_AVGPOOL: pool_forward(net, y, r, x, batch); break;
    case EL_EMBEDDING: embedding_forward(net, y, r, x, batch); break;
    case EL_POSITIONS: positions_forward(net, y, r, batch); break;
    case EL_ATTENTION: attention_forward(net, y, r, x, batch); break;
    case EL_BATCHNORM: batchnorm_infer(net, y, r, rows); break;
    case EL_LAYERNORM: layernorm_infer(net, y, r, rows); break;
    case EL_SOFTMAX:
      for (size_t b = 0; b < rows; b++) net->k->softmax(y + b * r->active, r->active);
      break;
    default: activate(net, y, r, rows * r->active);
  }
}

void batchnorm_move(const el_net *net, const node *at) {
  const el_record *r = at->record;
  float *running = running_statistics(net, r);
  const float *mean = at->statistics, *variance = mean + r->active;
  const float keep = r->arg[1], take = 1 - keep;
  for (uint32_t i = 0; i < r->active; i++) {
    running[i] = keep * running[i] + take * mean[i];
    running[r->units + i] = keep * running[r->units + i] + take * variance[i];
  }
}

/* Ioffe & Szegedy 2015, algorithm 1 */
static void batchnorm_forward(const el_net *net, const node *at, const float *x, size_t rows) {
  const el_record *r = at->record;
  const size_t n = r->active;
  float *mean = at->statistics, *variance = mean + n, *inverse = variance + n;
  net->k->column_sum(mean, x, rows, n);
  net->k->scale(mean, 1.0f / (float)rows, n);
  net->k->column_square(variance, x, mean, rows, n);
  net->k->scale(variance, 1.0f / (float)rows, n);
  for (size_t i = 0; i < n; i++) inverse[i] = 1 / sqrtf(variance[i] + r->arg[0]);
  const float *gamma = record_params(net, r);
  const affine_rows a = {.mean = mean, .inverse = inverse, .gamma = gamma, .beta = gamma + r->units};
  net->k->normalise(at->y, at->saved, x, &a, rows, n);
}

static void layernorm_forward(const el_net *net, const node *at, const float *x, size_t rows) {
  const el_record *r = at->record;
  const affine_rows a = layernorm_affine(net, r);
  for (size_t i = 0, from = 0; i < rows; i++, from += r->active) {
    at->statistics[i] = net->k->layernorm(at->y + from, at->saved + from, x + from, &a, r->active, r->arg[0]);
  }
}

void dropout_apply(const el_net *net, float *y, const el_record *r, const group *g, uint64_t from, size_t n) {
  const dropout_stream stream = {
      .seed = net->config.rule.seed, .first = from, .step = *g->updates, .block = r->block, .rate = r->arg[0]};
  net->k->dropout(y, n, &stream);
}

void layer_forward(const el_net *net, const group *g, const node *at, const float *x, uint32_t batch) {
  const el_record *r = at->record;
  const size_t rows = rows_of(r, batch), n = rows * r->active;
  switch (r->op) {
    case EL_RESCALE: return; /* done while loading */
    case EL_BATCHNORM: batchnorm_forward(net, at, x, rows); return;
    case EL_LAYERNORM: layernorm_forward(net, at, x, rows); return;
    default: break;
  }
  if (moves_error(r->op)) {
    layer_infer(net, at->y, r, x, batch);
    return;
  }
  if (at->y != x) memcpy(at->y, x, n * sizeof *x);
  activate(net, at->y, r, n);
  if (r->op == EL_POSITIONS) positions_forward(net, at->y, r, batch);
  if (r->op == EL_DROPOUT) dropout_apply(net, at->y, r, g, g->from * features_out(r), n);
}

/* d becomes gamma / deviation (d - mean d - xhat mean(d xhat)) */
static void batchnorm_back(const el_net *net, const node *at, float *d, size_t rows) {
  const size_t n = at->record->active;
  const float *gamma = record_params(net, at->record), *inverse = at->statistics + 2 * n;
  float *dot = net->scratch.columns, *sum = dot + n, *gain = sum + n;
  net->k->column_sum(sum, d, rows, n);
  memset(dot, 0, n * sizeof *dot);
  net->k->column_dot(dot, d, n, at->saved, n, rows, n);
  for (size_t i = 0; i < n; i++) gain[i] = gamma[i] * inverse[i];
  net->k->batchnorm_back(d, at->saved, gain, sum, dot, rows, n);
}

static void layernorm_back(const el_net *net, const node *at, float *d, size_t rows) {
  const size_t n = at->record->active;
  float *dot = net->scratch.columns, *sum = dot + n;
  net->k->column_sum(sum, d, rows, n);
  memset(dot, 0, n * sizeof *dot);
  net->k->column_dot(dot, d, n, at->saved, n, rows, n);
  for (size_t i = 0, from = 0; i < rows; i++, from += n) {
    net->k->layernorm_back(d + from, at->saved + from, record_params(net, at->record), at->statistics[i], n);
  }
}

void layer_back(const el_net *net, const group *g, const node *at, const float *x, float *d, uint32_t batch) {
  const el_record *r = at->record;
  const size_t rows = rows_of(r, batch), n = rows * r->active;
  switch (r->op) {
    case EL_RELU: net->k->relu_back(d, at->y, n); break;
    case EL_LEAKY_RELU: net->k->leaky_relu_back(d, at->y, n, r->arg[0]); break;
    case EL_TANH: net->k->tanh_back(d, at->y, n); break;
    case EL_SIGMOID: net->k->sigmoid_back(d, at->y, n); break;
    case EL_GELU: net->k->gelu_back(d, x, n); break;
    case EL_BATCHNORM: batchnorm_back(net, at, d, rows); break;
    case EL_LAYERNORM: layernorm_back(net, at, d, rows); break;
    case EL_DROPOUT: dropout_apply(net, d, r, g, g->from * features_out(r), n); break;
    default: break;
  }
}

void layer_back_to(const el_net *net, float *dx, const node *at, const float *x, const float *d, uint32_t batch) {
  switch (at->record->op) {
    case EL_DENSE: dense_back(net, dx, at->record, d, batch); break;
    case EL_CONV: conv_back(net, dx, at->record, d, batch); break;
    case EL_ATTENTION: attention_back(net, dx, at->record, x, d, batch); break;
    default: pool_back(net, dx, at->record, x, at->y, d, batch);
  }
}
