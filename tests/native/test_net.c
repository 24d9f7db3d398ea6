/* SPDX-License-Identifier: Apache-2.0
 * A whole net in caller memory: the plan is exact, nothing is allocated, threads change nothing, bad input is refused
 * before a weight moves, and it learns. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "edgelearn.h"
#include "philox.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif

#if !defined(SANITIZED) && defined(__GLIBC__)
/* Every allocation of the process, by whatever library, comes through here and is counted. */
static unsigned long allocations;
extern void *__libc_malloc(size_t); /* NOLINT(bugprone-reserved-identifier): glibc's name */
void *malloc(size_t size);
void *malloc(size_t size) {
  allocations++;
  return __libc_malloc(size);
}
#define COUNTS_ALLOCATIONS 1
#endif

enum { IN = 20, HIDDEN = 33, OUT = 5, BATCH = 8, SAMPLES = 40, RECORDS = 6 };
enum { W1 = IN * HIDDEN + HIDDEN, BN = 4 * HIDDEN, W2 = HIDDEN * OUT + OUT, PARAMS = W1 + BN + W2 };

static el_record records[RECORDS];
static float params[PARAMS], start[PARAMS], x[SAMPLES * IN];
static int32_t labels[SAMPLES];
static _Alignas(64) unsigned char memory[1 << 20];

static el_record record(uint32_t op, uint32_t block, uint32_t in, uint32_t units, uint32_t offset, uint32_t count) {
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

static void setup(void) {
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

static el_config config_of(uint32_t objective, uint32_t optimizer, uint32_t threads) {
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

static el_net *open_net(const el_config *config) {
  el_net *net = NULL;
  memcpy(params, start, sizeof params);
  CHECK(el_net_init(&net, memory, sizeof memory, records, RECORDS, params, PARAMS, config) == EL_OK, "init");
  return net;
}

static double fit(const el_config *config, uint64_t epochs) {
  el_net *net = open_net(config);
  el_stats stats = {0};
  const el_run run = {.seed = 4,
                      .steps = epochs * SAMPLES / BATCH,
                      .batch = BATCH,
                      .shuffle = 1,
                      .last_group = 1,
                      .schedule = {.kind = EL_COSINE, .lr = 0.02f, .total = epochs * SAMPLES / BATCH}};
  CHECK(el_net_fit(net, &all, &run, &stats) == EL_OK, "fit");
  float out[SAMPLES * OUT];
  CHECK(el_net_forward(net, &all, out) == EL_OK, "forward");
  int right = 0;
  for (int i = 0; i < SAMPLES; i++) {
    int best = 0;
    for (int j = 1; j < OUT; j++) best = out[i * OUT + j] > out[i * OUT + best] ? j : best;
    right += best == labels[i];
  }
  el_net_close(net);
  return (double)right / SAMPLES;
}

static void test_plan_is_exact(void) {
  for (uint32_t threads = 1; threads <= 3; threads++) {
    const el_config config = config_of(EL_READOUT, EL_ADAM, threads);
    el_sizes sizes;
    el_net *net = NULL;
    CHECK(el_net_size(records, RECORDS, &config, &sizes) == EL_OK, "size");
    CHECK(sizes.handle + sizes.activations + sizes.state + sizes.scratch == sizes.arena, "parts add up");
    CHECK(el_net_init(&net, memory, sizes.arena - 1, records, RECORDS, params, PARAMS, &config) == EL_ENOMEM,
          "a byte less");
    memset(memory, 0xA5, sizeof memory);
    CHECK(el_net_init(&net, memory, sizes.arena, records, RECORDS, params, PARAMS, &config) == EL_OK, "exactly");
    el_stats stats = {0};
    const el_samples few = {.x = x, .labels = labels, .n = BATCH};
    CHECK(el_net_step(net, &few, 0.01f, &stats) == EL_OK, "step");
    for (size_t i = sizes.arena; i < sizes.arena + 4096; i++) {
      if (memory[i] != 0xA5) CHECK(0, "wrote %zu bytes past the plan", i - sizes.arena);
    }
    el_net_close(net);
  }
}

static void test_learns_by_every_rule(void) {
  for (uint32_t objective = EL_TP_L2; objective <= EL_TP_CE_SIM; objective++) {
    for (uint32_t optimizer = EL_SGD; optimizer <= EL_ADAM; optimizer++) {
      const el_config config = config_of(objective, optimizer, 1);
      const double accuracy = fit(&config, 40);
      CHECK(accuracy > 0.8, "rule %u optimizer %u reaches %.2f", objective, optimizer, accuracy);
      CHECK(memcmp(params, start, W1 * sizeof *params) != 0, "rule %u leaves the hidden block", objective);
    }
  }
  const el_config untrained = config_of(EL_UNTRAINED, EL_ADAM, 1);
  fit(&untrained, 10);
  const size_t statistics = W1 + BN / 2, end = W1 + BN;
  CHECK(!memcmp(params, start, statistics * sizeof *params), "the control must not train hidden blocks");
  CHECK(memcmp(params + statistics, start + statistics, (end - statistics) * sizeof *params) != 0,
        "the control estimates statistics all the same");
}

static void test_threads_change_nothing(void) {
  float alone[PARAMS];
  for (uint32_t optimizer = EL_SGD; optimizer <= EL_ADAM; optimizer++) {
    const el_config one = config_of(EL_TP_CE, optimizer, 1), three = config_of(EL_TP_CE, optimizer, 3);
    fit(&one, 5);
    memcpy(alone, params, sizeof alone);
    fit(&three, 5);
    CHECK(!memcmp(alone, params, sizeof alone), "optimizer %u: threads changed the weights", optimizer);
  }
}

static void test_refuses_before_a_weight_moves(void) {
  const el_config config = config_of(EL_TP_L2, EL_SGD, 1);
  el_net *net = open_net(&config);
  el_stats stats = {0};
  const el_run run = {.steps = 5, .batch = BATCH, .last_group = 1, .schedule = {.lr = 0.1f}};
  const float bad[] = {NAN, INFINITY};
  for (int i = 0; i < 2; i++) {
    const float keep = x[SAMPLES * IN - 1];
    x[SAMPLES * IN - 1] = bad[i];
    CHECK(el_net_fit(net, &all, &run, &stats) == EL_ENONFINITE, "sample %g", (double)bad[i]);
    x[SAMPLES * IN - 1] = keep;
  }
  const int32_t wrong[] = {-1, OUT};
  for (int i = 0; i < 2; i++) {
    labels[SAMPLES - 1] = wrong[i];
    CHECK(el_net_fit(net, &all, &run, &stats) == EL_ELABEL, "label %d", wrong[i]);
    labels[SAMPLES - 1] = (SAMPLES - 1) % OUT;
  }
  const el_samples none = {.x = x, .labels = labels, .n = 0}, single = {.x = x, .labels = labels, .n = 1};
  CHECK(el_net_fit(net, &none, &run, &stats) == EL_EINVAL, "no samples");
  CHECK(el_net_step(net, &single, 0.1f, &stats) == EL_EBATCH, "batch statistics of one sample");
  CHECK(el_net_step(net, &all, 0.1f, &stats) == EL_EINVAL, "more samples than the batch");
  CHECK(!memcmp(params, start, sizeof params), "a refused call changed weights");
  el_net_close(net);
}

static void test_divergence_is_reported(void) {
  const el_config config = config_of(EL_TP_L2, EL_SGD, 1);
  el_net *net = open_net(&config);
  el_stats stats = {0};
  const el_run run = {.steps = 200, .batch = BATCH, .last_group = 1, .schedule = {.lr = 1e20f}};
  CHECK(el_net_keep(net) == EL_OK, "keep");
  CHECK(el_net_fit(net, &all, &run, &stats) == EL_ENONFINITE, "a rate of 1e20 goes unnoticed");
  CHECK(memcmp(params, start, sizeof params) != 0, "the test did not reach the weights");
  CHECK(el_net_revert(net) == EL_OK, "revert");
  CHECK(!memcmp(params, start, sizeof params), "revert brings the kept parameters back");
  el_net_close(net);
}

static void test_allocates_nothing(void) {
#ifdef COUNTS_ALLOCATIONS
  const el_config config = config_of(EL_TP_CE, EL_ADAM, 2);
  el_net *net = open_net(&config);
  free(malloc(1));
  CHECK(allocations > 0, "the counter does not count");
  const unsigned long before = allocations;
  el_stats stats = {0};
  float out[SAMPLES * OUT];
  const el_run run = {.steps = 50, .batch = BATCH, .shuffle = 1, .last_group = 1, .schedule = {.lr = 0.01f}};
  const el_status fitted = el_net_fit(net, &all, &run, &stats), answered = el_net_forward(net, &all, out);
  CHECK(allocations == before, "%lu allocations after init", allocations - before);
  CHECK(fitted == EL_OK && answered == EL_OK, "runs");
  el_net_close(net);
#endif
}

static void test_refuses_tables_that_are_no_net(void) {
  const el_config config = config_of(EL_TP_L2, EL_SGD, 1);
  el_sizes sizes;
  int refused = 0, words = RECORDS * (int)(sizeof(el_record) / 4);
  for (int word = 0; word < words; word++) {
    el_record broken[RECORDS];
    memcpy(broken, records, sizeof records);
    ((uint32_t *)(void *)broken)[word] ^= 0x80000000u;
    const el_status status = el_net_size(broken, RECORDS, &config, &sizes);
    refused += status == EL_EINVAL;
    if (status == EL_OK) { /* an offset or an argument that no check forbids must still be caught by init or run */
      el_net *net = NULL;
      const el_status placed = el_net_init(&net, memory, sizeof memory, broken, RECORDS, params, PARAMS, &config);
      if (placed == EL_OK) el_net_close(net);
    }
  }
  CHECK(refused > words / 2, "only %d of %d damaged tables refused", refused, words);
}

static void test_shuffle_is_a_permutation(void) {
  static const uint64_t sizes[] = {1, 2, 3, 7, 16, 17, 100, 1000};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    char seen[1000] = {0};
    uint64_t moved = 0;
    for (uint64_t i = 0; i < sizes[s]; i++) {
      const uint64_t at = el_shuffle(11, 2, sizes[s], i);
      CHECK(at < sizes[s] && !seen[at], "n=%d position %d", (int)sizes[s], (int)i);
      if (at < sizes[s]) seen[at] = 1;
      moved += at != i;
    }
    CHECK(sizes[s] < 100 || moved > sizes[s] / 2, "the order of %d hardly changes", (int)sizes[s]);
  }
}

/* The widths of a nested net: what a step may touch, and levels that are not there. */
static void test_nested_steps_stay_in_their_prefix(void) {
  static const uint32_t units[] = {8, 0, 0, 0, OUT, 0, 17, 0, 0, 0, OUT, 0, HIDDEN, 0, 0, 0, OUT, 0};
  static const float chances[] = {1, 0, 0};
  el_config config = config_of(EL_READOUT, EL_ADAM, 1);
  config.nest = (el_nest){.n_levels = 3, .units = units, .chances = chances};
  records[0].flags |= EL_FLAG_NESTED, records[4].flags |= EL_FLAG_NESTED;
  el_sizes sizes;
  CHECK(el_net_size(records, RECORDS, &config, &sizes) == EL_OK, "nested net refused");
  memset(memory, 0xA5, sizeof memory);
  memcpy(params, start, sizeof params);
  el_net *net;
  CHECK(el_net_init(&net, memory, sizes.arena, records, RECORDS, params, PARAMS, &config) == EL_OK, "not placed");
  const el_samples samples = {.x = x, .labels = labels, .n = BATCH};
  el_stats stats = {0};
  for (int i = 0; i < 20; i++) CHECK(el_net_step(net, &samples, 0.01f, &stats) == EL_OK, "step %d failed", i);
  int inside = 0, outside = 0;
  for (uint32_t i = 0; i < IN * HIDDEN; i++) {
    const int moved = params[i] != start[i];
    *(i % HIDDEN < 8 ? &inside : &outside) += moved;
  }
  CHECK(inside > IN * 4 && outside == 0, "%d weights moved inside the prefix, %d outside", inside, outside);
  CHECK(memory[sizes.arena] == 0xA5, "something was written behind the arena");
  float out[BATCH * OUT], narrow[BATCH * OUT];
  const uint32_t levels[] = {0, 2}, wrong[] = {3, 2};
  CHECK(el_net_forward(net, &samples, out) == EL_OK && el_net_resize(net, levels) == EL_OK, "not resized");
  CHECK(el_net_forward(net, &samples, narrow) == EL_OK && memcmp(out, narrow, sizeof out) != 0, "still whole");
  CHECK(el_net_resize(net, wrong) == EL_EINVAL && el_net_resize(net, NULL) == EL_OK, "a level that is not there");
  CHECK(el_net_forward(net, &samples, narrow) == EL_OK && memcmp(out, narrow, sizeof out) == 0, "not whole again");
  el_net_close(net);
  records[0].flags &= ~(uint32_t)EL_FLAG_NESTED, records[4].flags &= ~(uint32_t)EL_FLAG_NESTED;
}

int main(void) {
  setup();
  test_plan_is_exact();
  test_learns_by_every_rule();
  test_threads_change_nothing();
  test_refuses_before_a_weight_moves();
  test_divergence_is_reported();
  test_allocates_nothing();
  test_refuses_tables_that_are_no_net();
  test_shuffle_is_a_permutation();
  test_nested_steps_stay_in_their_prefix();
  return checks_report();
}
