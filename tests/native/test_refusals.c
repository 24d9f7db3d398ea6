/* SPDX-License-Identifier: Apache-2.0
 * Bad input is refused before a weight moves, tables that are no net before anything is placed; a rate that diverges is
 * reported. */
#include <math.h>

#include "small_net.h"

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

int main(void) {
  setup();
  test_refuses_before_a_weight_moves();
  test_divergence_is_reported();
  test_refuses_tables_that_are_no_net();
  return checks_report();
}
