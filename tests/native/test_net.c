/* SPDX-License-Identifier: Apache-2.0
 * A whole net in caller memory: the plan is exact, nothing is allocated, threads change nothing, and it learns. */
#include <stdlib.h>
#include <string.h>

#include "small_net.h"

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
  test_allocates_nothing();
  test_shuffle_is_a_permutation();
  test_nested_steps_stay_in_their_prefix();
  return checks_report();
}
