/* SPDX-License-Identifier: Apache-2.0
 * A net of two blocks in memory of its own, its samples and how it is opened. */
#ifndef SMALL_NET_H
#define SMALL_NET_H

#include <string.h>

#include "check.h"
#include "edgelearn.h"
#include "philox.h"

enum { IN = 20, HIDDEN = 33, OUT = 5, BATCH = 8, SAMPLES = 40, RECORDS = 6 };
enum { W1 = IN * HIDDEN + HIDDEN, BN = 4 * HIDDEN, W2 = HIDDEN * OUT + OUT, PARAMS = W1 + BN + W2 };

static el_record records[RECORDS];
static float params[PARAMS], start[PARAMS], x[SAMPLES * IN];
static int32_t labels[SAMPLES];
static _Alignas(64) unsigned char memory[1 << 20];

static inline el_record record(uint32_t op, uint32_t block, uint32_t in, uint32_t units, uint32_t offset,
                               uint32_t count) {
  static int32_t at;
  if (op == EL_DENSE && block == 0) at = 0;
  return (el_record){.op = op,
                     .block = block,
                     .input = {at++ - 1, -1},
                     .units = units,
                     .active = units,
                     .fan_in = in,
                     .fan_in_active = in,
                     .stride = units,
                     .offset = offset,
                     .params = count,
                     .flags = op == EL_DENSE ? EL_FLAG_BIAS : 0};
}

static inline void setup(void) {
  records[0] = record(EL_DENSE, 0, IN, HIDDEN, 0, W1);
  records[1] = record(EL_BATCHNORM, 0, HIDDEN, HIDDEN, W1, BN);
  records[1].arg[0] = 1e-5f, records[1].arg[1] = 0.9f;
  records[2] = record(EL_LEAKY_RELU, 0, HIDDEN, HIDDEN, 0, 0);
  records[2].arg[0] = 0.01f;
  records[3] = record(EL_DROPOUT, 0, HIDDEN, HIDDEN, 0, 0);
  records[3].arg[0] = 0.1f;
  records[4] = record(EL_DENSE, 1, HIDDEN, OUT, W1 + BN, W2);
  records[5] = record(EL_SOFTMAX, 1, OUT, OUT, 0, 0);
  for (uint32_t i = 0; i < PARAMS; i++) start[i] = (float)(philox(1, i, 0, 0, 9).w[0] * 0x1p-31 - 1) * 0.3f;
  for (uint32_t i = 0; i < HIDDEN; i++) start[W1 + i] = 1, start[W1 + 3 * HIDDEN + i] = 1;
  for (uint32_t i = 0; i < SAMPLES; i++) {
    labels[i] = (int32_t)(i % OUT);
    for (uint32_t j = 0; j < IN; j++) {
      x[i * IN + j] = (float)(philox(2, i, j, 0, 9).w[0] * 0x1p-32) + (j % OUT == i % OUT ? 1.0f : 0.0f);
    }
  }
  memcpy(params, start, sizeof params);
}

static inline el_config config_of(uint32_t objective, uint32_t optimizer, uint32_t threads) {
  return (el_config){
      .rule = {.objective = objective,
               .group = 1,
               .targets = OUT,
               .scale = 1,
               .temperature = 0.2f,
               .huber = 1,
               .similarity = 0.9f,
               .seed = 3},
      .optimizer = {.kind = optimizer, .momentum = 0.9f, .beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-8f},
      .batch = BATCH,
      .train = 1,
      .keep = 1,
      .threads = threads};
}

static const el_samples all = {.x = x, .labels = labels, .n = SAMPLES};

static inline el_net *open_net(const el_config *config) {
  el_net *net = NULL;
  memcpy(params, start, sizeof params);
  CHECK(el_net_init(&net, memory, sizeof memory, records, RECORDS, params, PARAMS, config) == EL_OK, "init");
  return net;
}

#endif
