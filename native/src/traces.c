/* SPDX-License-Identifier: Apache-2.0 */
#include "traces.h"

#include <string.h>

enum { TRACED = 3 }; /* gates whose effect the state keeps: all but the output gate of an LSTM */

/* Rows of the parameters as a matrix (rows, gates units): inputs, outputs before, biases. */
static size_t rows_of(const el_record *r) { return r->params / ((size_t)gates_of(r->op) * r->units); }

size_t trace_floats(const el_record *r, size_t batch) {
  return r->op == EL_SIMPLE_RNN ? 0 : rows_of(r) * batch * TRACED * r->units;
}

/* What a step does to the state: M samples each. */
typedef struct slopes {
  const float *keep;   /* (M,U) of the state before */
  const float *direct; /* (M,3U) of the gates' inputs */
  const float *inner;  /* (M,U) of the third gate's h V, where that is not the same */
  const float *signal; /* (M,U) error of the state */
} slopes;

static slopes gru_slopes(const cell *own, const float *d, size_t rows, size_t u, float share) {
  float *direct = own->hidden, *keep = own->carry[0], *signal = own->carry[1], *q = own->inner;
  const float *g = own->gates, *before = own->h;
  for (size_t b = 0; b < rows; b++, g += TRACED * u, direct += TRACED * u, before += u) {
    const float *z = g, *r = g + u, *n = g + 2 * u;
    for (size_t i = 0; i < u; i++, keep++, signal++, q++, d++) {
      const float dn = (1 - z[i]) * (1 - n[i] * n[i]);
      *keep = z[i];
      *signal = share * *d;
      direct[i] = (before[i] - n[i]) * z[i] * (1 - z[i]);
      direct[u + i] = dn * *q * r[i] * (1 - r[i]);
      direct[2 * u + i] = dn;
      *q = dn * r[i];
    }
  }
  return (slopes){own->carry[0], own->hidden, own->inner, own->carry[1]};
}

/* The output gate's errors go where its values were. */
static slopes lstm_slopes(const cell *own, const float *d, size_t rows, size_t u, float share) {
  float *direct = own->hidden, *keep = own->carry[0], *signal = own->carry[1], *g = own->gates;
  const float *before = own->c, *tc = own->squashed;
  for (size_t b = 0; b < rows; b++, g += 4 * u, direct += TRACED * u, before += u) {
    const float *in = g, *f = g + u, *j = g + 2 * u;
    float *o = g + 3 * u;
    for (size_t i = 0; i < u; i++, keep++, signal++, tc++, d++) {
      *keep = f[i];
      *signal = share * *d * o[i] * (1 - *tc * *tc);
      direct[i] = j[i] * in[i] * (1 - in[i]);
      direct[u + i] = before[i] * f[i] * (1 - f[i]);
      direct[2 * u + i] = in[i] * (1 - j[i] * j[i]);
      o[i] = *d * *tc * o[i] * (1 - o[i]);
    }
  }
  return (slopes){own->carry[0], own->hidden, NULL, own->carry[1]};
}

typedef struct trace_job {
  const el_net *net;
  const node *at;
  const cell *own;
  const float *x;
  slopes by;
  uint32_t batch;
} trace_job;

/* What row k of the parameters is multiplied by in sample b. */
static float input_of(const trace_job *j, size_t k, size_t b) {
  const size_t inputs = j->at->record->fan_in, units = j->at->record->units;
  if (k < inputs) return j->x[b * inputs + k];
  return k < inputs + units ? j->own->h[b * units + k - inputs] : 1;
}

/* Thread `part` takes every parts-th row of the parameters. */
static void trace_part(void *argument, uint32_t part, uint32_t parts) {
  const trace_job *j = argument;
  const el_record *r = j->at->record;
  const kernel_table *k = j->net->k;
  const size_t u = r->units, rows = rows_of(r), gates = gates_of(r->op);
  for (size_t row = part; row < rows; row += parts) {
    const int is_inner = j->by.inner && row >= r->fan_in && row != r->fan_in + u;
    float *sum = j->at->gradient + row * gates * u, *e = j->own->trace + row * j->batch * TRACED * u;
    for (size_t b = 0; b < j->batch; b++) {
      const float *keep = j->by.keep + b * u, *signal = j->by.signal + b * u, *direct = j->by.direct + b * TRACED * u;
      const float input = input_of(j, row, b);
      for (size_t g = 0; g < TRACED; g++, e += u) {
        const float *slope = is_inner && g == 2 ? j->by.inner + b * u : direct + g * u;
        k->trace(e, sum + g * u, keep, slope, signal, input, u);
      }
    }
  }
}

/* The output gate touches the output alone, so that its gradient needs no trace. */
static void output_gate(const trace_job *j, float share) {
  const size_t u = j->at->record->units, rows = rows_of(j->at->record);
  for (size_t row = 0; row < rows; row++) {
    float *sum = j->at->gradient + row * 4 * u + TRACED * u;
    for (size_t b = 0; b < j->batch; b++) {
      const float *error = j->own->gates + b * 4 * u + TRACED * u;
      j->net->k->axpy(sum, share * input_of(j, row, b), error, u);
    }
  }
}

void trace_step(const el_net *net, const node *at, const cell *own, const float *x, const float *d, uint32_t batch,
                update by) {
  const int is_gru = at->record->op == EL_GRU;
  trace_job job = {.net = net, .at = at, .own = own, .x = x, .batch = batch};
  job.by = (is_gru ? gru_slopes : lstm_slopes)(own, d, batch, at->record->units, by.share);
  pool_run(net->pool, trace_part, &job);
  if (!is_gru) output_gate(&job, by.share);
}
