/* SPDX-License-Identifier: Apache-2.0 */
#include "similarity.h"

#include <math.h>
#include <string.h>

#include "product.h"

static float centre(float *v, size_t n) {
  float sum = 0;
  for (size_t i = 0; i < n; i++) sum += v[i];
  for (size_t i = 0; i < n; i++) v[i] -= sum / (float)n;
  return sum;
}

enum { BLANK = 1000000 }; /* a row shorter than 1 / BLANK has no direction */

/* Rows centred and of unit length; the lengths go to `length`. A blank row becomes 0 and takes no gradient. */
static void make_unit(const el_net *net, float *v, float *length, size_t w, uint32_t batch) {
  for (uint32_t b = 0; b < batch; b++, v += w) {
    centre(v, w);
    const float own = sqrtf(net->k->dot(v, v, w));
    length[b] = own * BLANK < 1 ? INFINITY : own;
    net->k->scale(v, 1 / length[b], w);
  }
}

/* alike (M,M): similarities of v less those of the labels' centred one-hot codes; returns the mean of squares. */
static double compare(const el_net *net, const step *s, size_t w) {
  float *alike = net->scratch.alike;
  const float *v = net->scratch.v, apart = -1 / ((float)net->config.rule.targets - 1);
  net_gemm(net, &(gemm_job){.m = s->batch,
                            .n = s->batch,
                            .k = w,
                            .alpha = 1,
                            .a = v,
                            .a_row = w,
                            .a_col = 1,
                            .b = v,
                            .b_row = 1,
                            .b_col = w,
                            .c = alike,
                            .ldc = s->batch});
  double sum = 0;
  for (uint32_t i = 0; i < s->batch; i++) {
    for (uint32_t j = 0; j < s->batch; j++, alike++) {
      *alike -= s->labels[i] == s->labels[j] ? 1 : apart;
      sum += (double)*alike * (double)*alike;
    }
  }
  return sum / s->batch / s->batch;
}

/* dv = the error of the features before they were centred and scaled */
static void back_to_features(const el_net *net, const float *length, float share, size_t w, uint32_t batch) {
  float *dv = net->scratch.dv;
  const float *v = net->scratch.v;
  net_gemm(net, &(gemm_job){.m = batch,
                            .n = w,
                            .k = batch,
                            .alpha = 4 * share / (float)batch,
                            .a = net->scratch.alike,
                            .a_row = batch,
                            .a_col = 1,
                            .b = v,
                            .b_row = w,
                            .b_col = 1,
                            .c = dv,
                            .ldc = w});
  for (uint32_t b = 0; b < batch; b++, v += w, dv += w) {
    net->k->axpy(dv, -net->k->dot(v, dv, w), v, w);
    net->k->scale(dv, 1 / length[b], w);
    centre(dv, w);
  }
}

void similarity_objective(const el_net *net, const group *g, const step *s, const float *h, float *d, float share,
                          double *loss) {
  const size_t w = g->seen;
  float *length = net->scratch.alike + (size_t)s->batch * s->batch;
  memcpy(net->scratch.v, h, s->batch * w * sizeof *h);
  make_unit(net, net->scratch.v, length, w, s->batch);
  *loss += (double)share * s->batch * compare(net, s, w);
  back_to_features(net, length, share, w, s->batch);
  net->k->axpy(d, 1, net->scratch.dv, s->batch * w);
}
