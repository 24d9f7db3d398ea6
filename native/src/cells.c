/* SPDX-License-Identifier: Apache-2.0 */
#include "cells.h"

#include <string.h>

void gru_forward(const kernel_table *k, const float *hv, float *h, float *g, float *q, const float *before, size_t rows,
                 size_t u) {
  for (size_t b = 0; b < rows; b++, h += u, g += 3 * u, q += u, before += u, hv += 3 * u) {
    k->axpy(g, 1, hv, 2 * u);
    k->sigmoid(g, 2 * u);
    memcpy(q, hv + 2 * u, u * sizeof *q);
    const float *z = g, *r = g + u;
    float *n = g + 2 * u;
    for (size_t i = 0; i < u; i++) n[i] += r[i] * q[i];
    k->tanh(n, u);
    for (size_t i = 0; i < u; i++) h[i] = n[i] + z[i] * (before[i] - n[i]);
  }
}

void lstm_forward(const kernel_table *k, const float *hv, float *h, float *g, float *c, float *tc, const float *before,
                  size_t rows, size_t u) {
  k->axpy(g, 1, hv, rows * 4 * u);
  for (size_t b = 0; b < rows; b++, h += u, g += 4 * u, c += u, tc += u, before += u) {
    k->sigmoid(g, 2 * u);
    k->tanh(g + 2 * u, u);
    k->sigmoid(g + 3 * u, u);
    const float *in = g, *f = g + u, *j = g + 2 * u, *o = g + 3 * u;
    for (size_t i = 0; i < u; i++) tc[i] = c[i] = f[i] * before[i] + in[i] * j[i];
    k->tanh(tc, u);
    for (size_t i = 0; i < u; i++) h[i] = o[i] * tc[i];
  }
}

void simple_forward(const kernel_table *k, const float *hv, float *h, const float *g, int is_relu, size_t n) {
  memcpy(h, g, n * sizeof *h);
  k->axpy(h, 1, hv, n);
  if (is_relu) {
    k->relu(h, n);
  } else {
    k->tanh(h, n);
  }
}

void gru_back(const float *d, float *g, float *q, float *carry, const float *before, size_t rows, size_t u) {
  for (size_t b = 0; b < rows; b++, d += u, g += 3 * u, q += u, before += u, carry += u) {
    float *z = g, *r = g + u, *n = g + 2 * u;
    for (size_t i = 0; i < u; i++) {
      const float dn = d[i] * (1 - z[i]) * (1 - n[i] * n[i]), dz = d[i] * (before[i] - n[i]) * z[i] * (1 - z[i]);
      carry[i] = d[i] * z[i];
      n[i] = dn;
      z[i] = dz;
      const float reset = r[i];
      r[i] = dn * q[i] * reset * (1 - reset);
      q[i] = dn * reset;
    }
  }
}

void lstm_back(const float *d, float *g, const float *tc, float *carry, const float *before, size_t rows, size_t u) {
  for (size_t b = 0; b < rows; b++, d += u, g += 4 * u, tc += u, before += u, carry += u) {
    float *in = g, *f = g + u, *j = g + 2 * u, *o = g + 3 * u;
    for (size_t i = 0; i < u; i++) {
      const float dc = d[i] * o[i] * (1 - tc[i] * tc[i]) + carry[i];
      o[i] = d[i] * tc[i] * o[i] * (1 - o[i]);
      carry[i] = dc * f[i];
      f[i] = dc * before[i] * f[i] * (1 - f[i]);
      const float di = dc * j[i] * in[i] * (1 - in[i]);
      j[i] = dc * in[i] * (1 - j[i] * j[i]);
      in[i] = di;
    }
  }
}

void simple_back(const kernel_table *k, float *d, float *g, const float *h, int is_relu, size_t n) {
  if (is_relu) {
    k->relu_back(d, h, n);
  } else {
    k->tanh_back(d, h, n);
  }
  memcpy(g, d, n * sizeof *g);
}
