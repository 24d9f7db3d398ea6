/* SPDX-License-Identifier: Apache-2.0
 * One step of SimpleRNN, GRU (Cho et al. 2014, v3 of its preprint: the reset gate multiplies h V + bias, as cuDNN has
 * it) and LSTM (Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000), forward and back, once all
 * products are there. R rows of U units; gates lie beside each other in the order of Keras. h: output, `before`: that
 * of the step before, or the state of an LSTM before. */
#ifndef EL_CELLS_H
#define EL_CELLS_H

#include <stddef.h>

#include "kernels/kernels.h"

/* g (R,3U) = x W + bias becomes gates z, r and candidate n; hv (R,3U) = h V + bias, of which the candidate's part is
 * kept in q (R,U). */
void gru_forward(const kernel_table *k, const float *hv, float *h, float *g, float *q, const float *before, size_t rows,
                 size_t u);

/* d: error of h. g: gates become their errors; q: the error of the candidate's h V; carry (R,U): d z, which reaches the
 * output before. */
void gru_back(const float *d, float *g, float *q, float *carry, const float *before, size_t rows, size_t u);

/* g (R,4U) = x W + bias becomes gates i, f, candidate j and gate o; hv (R,4U) = h V; c (R,U): the state, tc: its tanh.
 */
void lstm_forward(const kernel_table *k, const float *hv, float *h, float *g, float *c, float *tc, const float *before,
                  size_t rows, size_t u);

/* The same with errors; carry (R,U): that of the state, which reaches the state before times f. */
void lstm_back(const float *d, float *g, const float *tc, float *carry, const float *before, size_t rows, size_t u);

/* h (n) = tanh or relu of g = x W + bias and hv = h V */
void simple_forward(const kernel_table *k, const float *hv, float *h, const float *g, int is_relu, size_t n);

/* d (n): error of h, becomes that of what was squashed, as does g. */
void simple_back(const kernel_table *k, float *d, float *g, const float *h, int is_relu, size_t n);

#endif
