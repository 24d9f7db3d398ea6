/* SPDX-License-Identifier: Apache-2.0
 * What the tests of kernels share: sizes, arrays, and how a kernel that runs in place is compared. */
#ifndef KERNEL_CHECK_H
#define KERNEL_CHECK_H

#include <math.h>
#include <string.h>

#include "check.h"
#include "edgelearn.h"
#include "kernels.h"
#include "philox.h"

enum { MOST = 300 };
static const size_t sizes[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 257};
static const kernel_table *k;
static const char *isa;
static float a[MOST + 1], b[MOST + 1], c[MOST + 1], y[MOST + 1], was[MOST + 1];

static inline double random_unit(void) {
  static uint32_t at;
  return philox(7, at++, 0, 0, 9).w[0] * 0x1p-31 - 1;
}

static inline void fill(float *x, size_t n, double scale) {
  for (size_t i = 0; i < n; i++) x[i] = (float)(random_unit() * scale);
}

static inline void fresh(void) {
  fill(a, MOST + 1, 2), fill(b, MOST + 1, 2), fill(c, MOST + 1, 2), fill(y, MOST + 1, 2);
  memcpy(was, y, sizeof y);
}

static inline void near(const char *kernel, size_t n, size_t i, double got, double want, double bound) {
  CHECK(fabs(got - want) <= bound * (1 + fabs(want)), "%s %s n=%zu i=%zu: %.9g, not %.9g", isa, kernel, n, i, got,
        want);
}

/* Runs `call` on y + 1 (an odd address), then compares each y[i] with `want`, and that nothing past n was touched. */
#define IN_PLACE(name, n, call, want, bound)                                                                           \
  do {                                                                                                                 \
    fresh();                                                                                                           \
    float *v = y + 1;                                                                                                  \
    const float *w = was + 1;                                                                                          \
    call;                                                                                                              \
    for (size_t i = 0; i < (n); i++) near(#name, n, i, v[i], want, bound);                                             \
    CHECK((n) == MOST || v[n] == w[n], "%s " #name " n=%zu wrote past its end", isa, (size_t)(n));                     \
  } while (0)

/* Runs a test with `k` as the table of each set that runs here. */
static inline int on_every_set(void (*test)(uint32_t number)) {
  int tested = 0;
  for (uint32_t number = EL_ISA_SCALAR; number <= EL_ISA_NEON; number++) {
    if (!el_isa_available(number)) continue;
    k = kernels_for(number);
    isa = el_isa_name(number);
    test(number);
    tested++;
  }
  printf("%d instruction sets\n", tested);
  CHECK(tested > 0 && el_isa_available(el_isa_best()), "no instruction set runs here");
  return checks_report();
}

#endif
