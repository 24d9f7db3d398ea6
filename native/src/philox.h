/* SPDX-License-Identifier: Apache-2.0
 * Philox4x32-10 (Salmon et al. 2011): random words as a pure function of (seed, counter).
 * Streams, the last counter word: 0 codes, 1 dropout, 2 shuffling, 3 weight initialisation (Python), 4 widths. */
#ifndef EL_PHILOX_H
#define EL_PHILOX_H

#include <stdint.h>

enum { STREAM_CODES = 0, STREAM_DROPOUT = 1, STREAM_SHUFFLE = 2, STREAM_WIDTHS = 4 };

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u

typedef struct philox_words {
  uint32_t w[4];
} philox_words;

static inline philox_words philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = (uint64_t)c0 * PHILOX_M0, p1 = (uint64_t)c2 * PHILOX_M1;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    k0 += PHILOX_W0;
    k1 += PHILOX_W1;
  }
  return (philox_words){{c0, c1, c2, c3}};
}

#endif
