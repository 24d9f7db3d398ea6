/* SPDX-License-Identifier: Apache-2.0
 * A model file is opened in place, behind a JSON header that the core does not read; what is short or odd is refused.
 */
#include <string.h>

#include "check.h"
#include "edgelearn.h"

enum { JSON = 56, TABLE = 8 + JSON, RECORDS = 1, PARAMS = 4, SIZE = TABLE + 64 + 64 * RECORDS + 4 * PARAMS };

static _Alignas(64) unsigned char file[SIZE];

static void put(size_t at, uint32_t value) {
  for (int i = 0; i < 4; i++) file[at + (size_t)i] = (unsigned char)(value >> (8 * i));
}

static void build(void) {
  memset(file, ' ', TABLE);
  memset(file + TABLE, 0, SIZE - TABLE);
  put(0, JSON), put(4, 0);
  put(TABLE, 0x524E4C45), put(TABLE + 4, 1), put(TABLE + 8, RECORDS), put(TABLE + 12, PARAMS);
  put(TABLE + 64, EL_DENSE);
  put(TABLE + 128 + 12, 0x40490FDB); /* the last parameter: pi */
}

static el_status open_first(size_t size, uint32_t *op, float *last) {
  const el_record *records;
  const float *params;
  uint32_t n;
  uint64_t count;
  const el_status status = el_model_open(file, size, &records, &n, &params, &count);
  if (status) return status;
  *op = records[n - 1].op;
  *last = params[count - 1];
  return EL_OK;
}

int main(void) {
  uint32_t op = 0;
  float last = 0;
  build();
  CHECK(open_first(SIZE, &op, &last) == EL_OK && op == EL_DENSE && last > 3.14f && last < 3.15f, "opens in place");
  for (size_t size = 0; size < SIZE; size++) CHECK(open_first(size, &op, &last) == EL_EFORMAT, "cut at %zu", size);
  const size_t fields[] = {4, TABLE, TABLE + 4, TABLE + 8, TABLE + 12};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    build();
    put(fields[i], 0x7FFFFFFF);
    CHECK(open_first(SIZE, &op, &last) == EL_EFORMAT, "field at %zu", fields[i]);
  }
  return checks_report();
}
