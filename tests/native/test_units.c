/* SPDX-License-Identifier: Apache-2.0
 * Attention against plain loops in double, on every instruction set; nets of units learn the same to the bit with any
 * number of threads, in memory that is planned exactly; tables that are no net and tokens that are none are refused. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "edgelearn.h"
#include "philox.h"

enum { BATCH = 5, STEPS = 7, WIDTH = 6, TOKENS = 11, CLASSES = 3, RECORDS = 9, MOST = 1 << 12 };

static float params[MOST], start[MOST], x[BATCH * STEPS * 3 * WIDTH], out[BATCH * STEPS * 3 * WIDTH];
static int32_t labels[BATCH];
static _Alignas(64) unsigned char memory[1 << 20];
static el_record records[RECORDS];
static uint32_t n_params;

static float draw(uint32_t i, uint32_t stream) { return (float)(philox(3, i, stream, 0, 9).w[0] * 0x1p-31 - 1); }

/* The next record of the chain, over the steps of a sequence. */
static el_record *append(uint32_t at, uint32_t op, uint32_t block, uint32_t fan_in, uint32_t units, uint32_t floats) {
  el_record *r = records + at;
  *r =
      (el_record){.op = op, .block = block, .units = units, .active = units, .fan_in = fan_in, .fan_in_active = fan_in};
  r->input[0] = (int32_t)at - 1, r->input[1] = -1, r->stride = units;
  r->size = 1u << 16 | STEPS, r->offset = n_params, r->params = floats;
  n_params += floats;
  return r;
}

static void project(uint32_t at, uint32_t block, uint32_t fan_in, uint32_t units) {
  el_record *r = append(at, EL_CONV, block, fan_in, units, fan_in * units);
  r->window = 0x01010101u;
}

/* Tokens, their places, x + attention of two heads, the mean over all steps. */
static void build(void) {
  n_params = 0;
  append(0, EL_EMBEDDING, 0, 1, WIDTH, TOKENS * WIDTH);
  append(1, EL_POSITIONS, 0, WIDTH, WIDTH, STEPS * WIDTH);
  append(2, EL_LAYERNORM, 1, WIDTH, WIDTH, 2 * WIDTH)->arg[0] = 1e-5f;
  project(3, 1, WIDTH, 3 * WIDTH);
  append(4, EL_ATTENTION, 1, 3 * WIDTH, WIDTH, 0)->flags = 2u << 16;
  project(5, 1, WIDTH, WIDTH);
  append(6, EL_ADD, 1, WIDTH, WIDTH, 0)->input[1] = 1;
  append(7, EL_GLOBAL_AVGPOOL, 1, WIDTH, WIDTH, 0);
  append(8, EL_DENSE, 2, WIDTH, CLASSES, WIDTH * CLASSES)->size = 0;
}

static el_config config_of(uint32_t isa, uint32_t threads, uint32_t group) {
  return (el_config){.rule = {.objective = EL_READOUT,
                              .group = group,
                              .targets = CLASSES,
                              .scale = 1,
                              .temperature = 1,
                              .huber = 1,
                              .grid = 2},
                     .optimizer = {.kind = EL_ADAM, .beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-3f},
                     .batch = BATCH,
                     .train = 1,
                     .threads = threads,
                     .isa = isa};
}

static el_net *open_net(const el_config *config, const el_record *table, uint32_t n) {
  el_net *net = NULL;
  el_sizes sizes = {0};
  CHECK(el_net_size(table, n, config, &sizes) == EL_OK && sizes.arena <= sizeof memory, "size");
  CHECK(el_net_init(&net, memory, sizes.arena - 1, table, n, params, MOST, config) == EL_ENOMEM, "a byte less is less");
  CHECK(el_net_init(&net, memory, sizes.arena, table, n, params, MOST, config) == EL_OK, "the plan is what it takes");
  return net;
}

/* Output of unit u of a head at step t, queries, keys and values beside each other. */
static double attention_at(const float *rows, uint32_t head, uint32_t units, uint32_t t, uint32_t u) {
  const float *q = rows + (size_t)t * 3 * WIDTH + (size_t)head * 3 * units;
  double score[STEPS], top = -1e30, total = 0, sum = 0;
  for (uint32_t i = 0; i < STEPS; i++) {
    const float *k = rows + (size_t)i * 3 * WIDTH + (size_t)head * 3 * units + units;
    score[i] = 0;
    for (uint32_t j = 0; j < units; j++) score[i] += (double)q[j] * k[j] / sqrt(units);
    top = fmax(top, score[i]);
  }
  for (uint32_t i = 0; i < STEPS; i++) total += exp(score[i] - top);
  for (uint32_t i = 0; i < STEPS; i++) {
    sum += exp(score[i] - top) / total * rows[i * 3 * WIDTH + head * 3 * units + 2 * units + u];
  }
  return sum;
}

/* A product that hands on what it reads in front of the attention makes a net of it. */
static void test_attention(uint32_t isa, uint32_t threads, uint32_t heads) {
  const uint32_t units = WIDTH / heads, all = 3 * WIDTH;
  n_params = 0;
  project(0, 0, all, all);
  append(1, EL_ATTENTION, 0, all, WIDTH, 0)->flags = heads << 16;
  memset(params, 0, sizeof params);
  for (uint32_t i = 0; i < all; i++) params[i * all + i] = 1;
  const el_config config = {.batch = BATCH, .threads = threads, .isa = isa};
  el_net *net = open_net(&config, records, 2);
  const el_samples samples = {.x = x, .n = BATCH};
  CHECK(el_net_forward(net, &samples, out) == EL_OK, "forward");
  double worst = 0;
  for (uint32_t i = 0; i < BATCH * STEPS * WIDTH; i++) {
    const uint32_t b = i / (STEPS * WIDTH), t = i / WIDTH % STEPS, u = i % WIDTH;
    worst = fmax(worst, fabs(attention_at(x + (size_t)b * STEPS * all, u / units, units, t, u % units) - out[i]));
  }
  CHECK(worst < 1e-5, "%s, %u heads: %g from plain loops", el_isa_name(isa), heads, worst);
  el_net_close(net);
}

static void test_learning(uint32_t isa, uint32_t group) {
  static float alone[MOST], tokens[BATCH * STEPS];
  for (uint32_t i = 0; i < BATCH * STEPS; i++) tokens[i] = (float)(i * 7 % TOKENS);
  const el_samples samples = {.x = tokens, .labels = labels, .n = BATCH};
  build();
  for (uint32_t threads = 1; threads <= 3; threads++) {
    const el_config config = config_of(isa, threads, group);
    memcpy(params, start, sizeof params);
    el_net *net = open_net(&config, records, RECORDS);
    el_stats stats = {0};
    for (int i = 0; i < 3; i++) CHECK(el_net_step(net, &samples, 0.01f, &stats) == EL_OK, "step");
    el_net_close(net);
    if (threads == 1) {
      memcpy(alone, params, sizeof params);
      CHECK(memcmp(alone, start, sizeof params) != 0, "nothing was learned");
    }
    CHECK(!memcmp(alone, params, sizeof params), "%u threads give other bits", threads);
  }
}

static void test_tokens_are_refused_before_a_weight_moves(void) {
  static const float bad[] = {-1, TOKENS, 2.5f, 1e30f};
  build();
  const el_config config = config_of(EL_ISA_AUTO, 1, 1);
  memcpy(params, start, sizeof params);
  el_net *net = open_net(&config, records, RECORDS);
  float tokens[3 * BATCH * STEPS] = {0};
  int32_t answers[3 * BATCH] = {0};
  const el_samples samples = {.x = tokens, .labels = answers, .n = (uint64_t)3 * BATCH},
                   few = {.x = tokens, .labels = answers, .n = 1};
  const el_run run = {.steps = 3, .batch = BATCH, .last_group = 2, .schedule = {.lr = 0.01f}};
  el_stats stats = {0};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    tokens[3 * BATCH * STEPS - 1] = bad[i];
    CHECK(el_net_fit(net, &samples, &run, &stats) == EL_ETOKEN, "fit takes %g", (double)bad[i]);
    CHECK(el_net_forward(net, &samples, out) == EL_ETOKEN, "forward takes %g", (double)bad[i]);
    tokens[0] = bad[i];
    CHECK(el_net_step(net, &few, 0.1f, &stats) == EL_ETOKEN, "step takes %g", (double)bad[i]);
    tokens[0] = 0;
  }
  CHECK(!memcmp(params, start, sizeof params), "a refused token changed weights");
  el_net_close(net);
}

static void test_bad_tables_are_refused(void) {
  build();
  const el_config config = config_of(EL_ISA_AUTO, 1, 1);
  el_sizes sizes;
  const struct {
    uint32_t *field, value;
  } bad[] = {{&records[0].params, TOKENS * WIDTH + 1},
             {&records[0].params, 0},
             {&records[0].size, STEPS << 16 | 1},
             {&records[1].params, WIDTH},
             {&records[4].flags, 4u << 16},
             {&records[4].fan_in, 2 * WIDTH},
             {(uint32_t *)(void *)&records[6].input[1], 5},
             {(uint32_t *)(void *)&records[6].input[1], 6},
             {(uint32_t *)(void *)&records[6].input[1], 0},
             {(uint32_t *)(void *)&records[6].input[1], 3},
             {(uint32_t *)(void *)&records[6].input[1], (uint32_t)-2},
             {(uint32_t *)(void *)&records[5].input[1], 1},
             {&records[6].block, 2},
             {&records[8].block, 3},
             {&records[6].op, 19},
             {&records[6].op, EL_EMBEDDING}};
  CHECK(el_net_size(records, RECORDS, &config, &sizes) == EL_OK, "a good one is taken");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const uint32_t keep = *bad[i].field;
    *bad[i].field = bad[i].value;
    CHECK(el_net_size(records, RECORDS, &config, &sizes) == EL_EINVAL, "bad table %zu is taken", i);
    *bad[i].field = keep;
  }
}

int main(void) {
  for (uint32_t i = 0; i < MOST; i++) start[i] = 0.5f * draw(i, 0);
  for (uint32_t i = 0; i < BATCH * STEPS * 3 * WIDTH; i++) x[i] = 2 * draw(i, 1);
  for (int32_t i = 0; i < BATCH; i++) labels[i] = i % CLASSES;
  for (uint32_t isa = EL_ISA_SCALAR; isa <= EL_ISA_NEON; isa++) {
    if (!el_isa_available(isa)) continue;
    for (uint32_t threads = 1; threads <= 3; threads++) {
      for (uint32_t heads = 1; heads <= 3; heads++) test_attention(isa, threads, heads);
    }
    test_learning(isa, 1);
    test_learning(isa, 3);
  }
  test_tokens_are_refused_before_a_weight_moves();
  test_bad_tables_are_refused();
  return checks_report();
}
