/* SPDX-License-Identifier: Apache-2.0 */
#include "traces.h"

enum { TRACED = 3 }; /* gates whose effect the state keeps: all but the output gate of an LSTM */

size_t trace_floats(const el_record *r, size_t batch) {
  return r->op == EL_SIMPLE_RNN ? 0 : recurrent_rows(r) * batch * TRACED * r->active;
}

typedef struct trace_job {
  const el_net *net;
  const node *at;
  const cell *own;
  const float *x;    /* (R,D) */
  const float *kept; /* (M,U) */
  stretch over;
} trace_job;

/* What row k of the parameters is multiplied by in sample b at step t. */
static float input_of(const trace_job *j, size_t k, size_t t, size_t b) {
  const el_record *r = j->at->record;
  const size_t inputs = r->fan_in_active, units = r->active, m = j->over.batch;
  if (k < inputs) return product_gain(r) * j->x[(t * m + b) * inputs + k];
  if (k >= inputs + units) return 1;
  return recurrent_gain(r) * (t ? j->at->y + (t - 1) * m * units : j->own->h)[b * units + k - inputs];
}

static float *trace_of(const trace_job *j, size_t row, size_t b) {
  return j->own->trace + (row * j->over.batch + b) * TRACED * j->at->record->active;
}

/* The gradient gains the traces under the errors of what they did. Thread `part` takes every parts-th row. */
static void gain_part(void *argument, uint32_t part, uint32_t parts) {
  const trace_job *j = argument;
  const el_record *r = j->at->record;
  const size_t u = r->active, rows = recurrent_rows(r), gates = gates_of(r->op);
  for (size_t row = part; row < rows; row += parts) {
    float *sum = j->at->gradient + row * gates * u;
    for (size_t b = 0; b < j->over.batch; b++) {
      j->net->k->column_madd(sum, u, trace_of(j, row, b), u, j->kept + b * u, TRACED, u);
    }
  }
}

/* One trace over the steps at hand: what is kept of it, and what each step adds. */
static void move_trace(const trace_job *j, float *e, const float *slope, size_t apart, size_t row, size_t b, size_t n) {
  const size_t u = j->at->record->active, m = j->over.batch;
  for (size_t g = 0; g < n; g++) {
    j->net->k->trace(e + g * u, j->kept + b * u, slope + b * apart + g * u, input_of(j, row, 0, b), u);
  }
  for (size_t t = 1; t < j->over.steps; t++) {
    j->net->k->axpy(e, input_of(j, row, t, b), slope + (t * m + b) * apart, n * u);
  }
}

/* A GRU's candidate reads h V through the reset gate: there its slope is another. */
static void move_part(void *argument, uint32_t part, uint32_t parts) {
  const trace_job *j = argument;
  const el_record *r = j->at->record;
  const size_t u = r->active, rows = recurrent_rows(r), all = gates_of(r->op) * u;
  for (size_t row = part; row < rows; row += parts) {
    const int is_inner = r->op == EL_GRU && row >= r->fan_in_active && row != r->fan_in_active + u;
    for (size_t b = 0; b < j->over.batch; b++) {
      float *e = trace_of(j, row, b);
      move_trace(j, e, j->own->gates, all, row, b, is_inner ? 2 : TRACED);
      if (is_inner) move_trace(j, e + 2 * u, j->own->inner, u, row, b, 1);
    }
  }
}

void trace_back(const el_net *net, const node *at, const cell *own, const float *x, float *d, stretch over, update by,
                int goes_on) {
  trace_job job = {.net = net, .at = at, .own = own, .x = x, .over = over};
  float *kept = cell_back_kept(net, at, own, x, d, over, by);
  if (!goes_on || !own->trace) return;
  net->k->scale(kept, by.share, (size_t)over.batch * at->record->active);
  job.kept = kept;
  pool_run(net->pool, gain_part, &job);
  cell_forward(net, at, own, x, over); /* the gates were used up */
  job.kept = cell_slopes(net, at, own, d, over);
  pool_run(net->pool, move_part, &job);
}
