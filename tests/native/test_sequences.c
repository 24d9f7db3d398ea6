/* SPDX-License-Identifier: Apache-2.0
 * Recurrent nets learn the same to the bit with any number of threads, on every instruction set, in memory that is
 * planned exactly and that no number of steps changes; pieces of a stream are the whole; what is no such net is
 * refused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "edgelearn.h"
#include "philox.h"

enum { BATCH = 5, STEPS = 7, WIDTH = 3, UNITS = 6, CLASSES = 4, RECORDS = 4, MOST = 1 << 12 };

static float params[MOST], start[MOST], x[BATCH * STEPS * WIDTH], out[BATCH * CLASSES], whole[BATCH * CLASSES];
static int32_t labels[BATCH];
static el_record records[RECORDS];
static uint32_t n_params;

static float draw(uint32_t i, uint32_t stream) { return (float)(philox(5, i, stream, 0, 9).w[0] * 0x1p-31 - 1); }

static el_record *append(uint32_t at, uint32_t op, uint32_t block, uint32_t fan_in, uint32_t units, uint32_t floats) {
  el_record *r = records + at;
  *r =
      (el_record){.op = op, .block = block, .units = units, .active = units, .fan_in = fan_in, .fan_in_active = fan_in};
  r->input[0] = (int32_t)at - 1, r->input[1] = -1, r->stride = units;
  r->offset = n_params, r->params = floats;
  n_params += floats;
  return r;
}

/* LSTM of all steps, normalised, into a GRU of the last one. */
static void build(uint32_t steps) {
  n_params = 0;
  el_record *r = append(0, EL_LSTM, 0, WIDTH, UNITS, (WIDTH + UNITS + 1) * 4 * UNITS);
  r->size = 1u << 16 | steps, r->flags = EL_FLAG_BIAS | EL_FLAG_SEQUENCES;
  r = append(1, EL_LAYERNORM, 0, UNITS, UNITS, 2 * UNITS);
  r->size = 1u << 16 | steps, r->arg[0] = 1e-5f;
  r = append(2, EL_GRU, 1, UNITS, UNITS, (2 * UNITS + 2) * 3 * UNITS);
  r->size = 1u << 16 | steps, r->flags = EL_FLAG_BIAS;
  append(3, EL_DENSE, 2, UNITS, CLASSES, UNITS * CLASSES);
}

static el_config config_of(uint32_t isa, uint32_t threads) {
  return (el_config){.rule = {.objective = EL_READOUT,
                              .group = 1,
                              .targets = CLASSES,
                              .scale = 1,
                              .temperature = 1,
                              .huber = 1,
                              .timing = EL_RAMP,
                              .window = 1},
                     .optimizer = {.kind = EL_ADAM, .beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-3f},
                     .batch = BATCH,
                     .train = 1,
                     .threads = threads,
                     .isa = isa};
}

/* A net in memory of exactly its size; the caller frees that. */
static el_net *open_net(const el_config *config, void **memory) {
  el_net *net = NULL;
  el_sizes sizes = {0};
  CHECK(el_net_size(records, RECORDS, config, &sizes) == EL_OK, "size");
  const size_t bytes = (sizes.arena + 63) / 64 * 64;
  *memory = aligned_alloc(64, bytes);
  CHECK(el_net_init(&net, *memory, sizes.arena - 1, records, RECORDS, params, MOST, config) == EL_ENOMEM, "too small");
  CHECK(el_net_init(&net, *memory, sizes.arena, records, RECORDS, params, MOST, config) == EL_OK, "init");
  return net;
}

static el_samples samples(void) { return (el_samples){.x = x, .labels = labels, .n = BATCH}; }

/* Three steps of learning from the start; the parameters stay in params. */
static void learn(const el_config *config) {
  void *memory;
  memcpy(params, start, sizeof params);
  el_net *net = open_net(config, &memory);
  const el_samples s = samples();
  el_stats stats = {0};
  for (int i = 0; i < 3; i++) CHECK(el_net_step(net, &s, 0.01f, &stats) == EL_OK, "step");
  CHECK(stats.samples == (uint64_t)3 * BATCH && isfinite(stats.loss), "stats");
  CHECK(memcmp(params, start, n_params * sizeof *params) != 0, "nothing was learned");
  el_net_close(net);
  free(memory);
}

static void test_threads(uint32_t isa, uint32_t window, uint32_t traces, uint32_t micro, uint32_t group) {
  static float alone[MOST];
  el_config config = config_of(isa, 1);
  config.rule.window = window, config.rule.traces = traces, config.micro = micro, config.rule.group = group;
  learn(&config);
  memcpy(alone, params, sizeof alone);
  config.threads = 3;
  learn(&config);
  CHECK(memcmp(alone, params, sizeof alone) == 0, "threads change window %u, traces %u, group %u", window, traces,
        group);
}

static void test_memory(void) {
  el_sizes few = {0}, many = {0};
  const el_config config = config_of(EL_ISA_AUTO, 1);
  build(10);
  CHECK(el_net_size(records, RECORDS, &config, &few) == EL_OK, "few steps");
  build(60000);
  CHECK(el_net_size(records, RECORDS, &config, &many) == EL_OK, "many steps");
  CHECK(memcmp(&few, &many, sizeof few) == 0, "memory grows with the number of steps");
  build(STEPS);
}

/* Steps from .. to of each stream, as they lie beside each other in one piece. */
static el_status piece(el_net *net, uint32_t from, uint32_t to) {
  float part[BATCH * STEPS * WIDTH];
  const size_t n = (size_t)(to - from) * WIDTH;
  for (size_t b = 0; b < BATCH; b++) memcpy(part + b * n, x + (b * STEPS + from) * WIDTH, n * sizeof *part);
  const el_samples s = {.x = part, .n = BATCH};
  return el_net_stream(net, &s, to - from, out);
}

static void test_stream(uint32_t isa, uint32_t train) {
  void *memory;
  el_config config = config_of(isa, 1);
  config.train = train;
  memcpy(params, start, sizeof params);
  el_net *net = open_net(&config, &memory);
  const el_samples s = samples();
  CHECK(el_net_forward(net, &s, whole) == EL_OK, "forward");
  for (uint32_t b = 0; b < BATCH; b++) CHECK(el_net_reset(net, b) == EL_OK, "reset");
  CHECK(piece(net, 0, 1) == EL_OK && piece(net, 1, 5) == EL_OK && piece(net, 5, STEPS) == EL_OK, "pieces");
  for (uint32_t i = 0; i < BATCH * CLASSES; i++) CHECK(fabsf(out[i] - whole[i]) <= 1e-6f, "a stream is not the whole");
  const el_samples fewer = {.x = x, .labels = labels, .n = BATCH - 1};
  CHECK(el_net_stream(net, &fewer, 2, out) == EL_EINVAL, "a stream is missing");
  CHECK(el_net_stream(net, &s, 0, out) == EL_EINVAL && el_net_reset(net, BATCH) == EL_EINVAL, "no steps, no stream");
  el_stats stats = {0};
  CHECK(el_net_stream_step(net, &s, STEPS, 0.01f, &stats) == (train ? EL_OK : EL_EINVAL), "learning from a stream");
  labels[2] = CLASSES;
  CHECK(!train || el_net_stream_step(net, &s, STEPS, 0.01f, &stats) == EL_ELABEL, "a label outside");
  labels[2] = 2;
  el_net_close(net);
  free(memory);
  config.rule.traces = 1;
  net = open_net(&config, &memory);
  CHECK(el_net_stream_step(net, &s, STEPS, 0.01f, &stats) == EL_EINVAL, "no traces are kept for streams");
  el_net_close(net);
  free(memory);
}

static int is_refused(const el_config *config) {
  el_sizes sizes;
  const int refused = el_net_size(records, RECORDS, config, &sizes) == EL_EINVAL;
  build(STEPS);
  return refused;
}

static void test_refused(void) {
  el_config config = config_of(EL_ISA_AUTO, 1);
  records[0].flags = EL_FLAG_BIAS;
  CHECK(is_refused(&config), "a GRU reads the last step of an LSTM");
  records[0].params--;
  CHECK(is_refused(&config), "weights are missing");
  records[0].size = 2u << 16 | STEPS;
  CHECK(is_refused(&config), "a sequence of height 2");
  records[2].active--;
  CHECK(is_refused(&config), "units in use of a GRU that are not read");
  records[2].op = EL_CONV;
  CHECK(is_refused(&config), "another operation's weights");
  config.rule.window = STEPS + 1;
  CHECK(is_refused(&config), "a window longer than the sequence");
  config.rule.window = 2, config.rule.traces = 1;
  CHECK(is_refused(&config), "traces and a window");
  config.rule.window = 1, config.rule.group = 2;
  CHECK(is_refused(&config), "traces of two layers");
  config.rule.traces = 2, config.rule.group = 1;
  CHECK(is_refused(&config), "traces that are no switch");
  config.rule.traces = 0, config.rule.timing = EL_LATE + 1;
  CHECK(is_refused(&config), "an unknown timing");
}

int main(void) {
  build(STEPS);
  for (uint32_t i = 0; i < MOST; i++) start[i] = 0.5f * draw(i, 0);
  for (uint32_t i = 0; i < BATCH * STEPS * WIDTH; i++) x[i] = draw(i, 1);
  for (int32_t b = 0; b < BATCH; b++) labels[b] = b % CLASSES;
  for (uint32_t isa = EL_ISA_SCALAR; isa <= EL_ISA_NEON; isa++) {
    if (!el_isa_available(isa)) continue;
    for (uint32_t window = 1; window <= STEPS; window += 3) test_threads(isa, window, 0, 2, 1);
    test_threads(isa, 1, 1, 0, 1), test_threads(isa, 1, 1, 2, 1), test_threads(isa, STEPS, 0, 0, 3);
    test_stream(isa, 0), test_stream(isa, 1);
  }
  test_memory();
  test_refused();
  return checks_report();
}
