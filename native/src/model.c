/* SPDX-License-Identifier: Apache-2.0
 * A model file is safetensors whose data begins with a table: 16 words of header, the records, the parameters.
 * So the core finds its net behind the JSON without reading any of it. */
#include <string.h>

#include "edgelearn.h"

enum { MAGIC = 0x524E4C45, VERSION = 1, HEADER = 64 }; /* "ELNR" */

static uint64_t little_endian(const unsigned char *p, int bytes) {
  uint64_t v = 0;
  for (int i = bytes; i-- > 0;) v = v << 8 | p[i];
  return v;
}

el_status el_model_open(const void *file, size_t size, const el_record **records, uint32_t *n_records,
                        const float **params, uint64_t *n_params) {
  if (!file || !records || !n_records || !params || !n_params) return EL_EINVAL;
  const unsigned char *bytes = file;
  if (size < 8 + HEADER || little_endian(bytes, 8) > size - 8 - HEADER) return EL_EFORMAT;
  const unsigned char *table = bytes + 8 + little_endian(bytes, 8);
  const size_t rest = size - (size_t)(table - bytes) - HEADER;
  const uint64_t n = little_endian(table + 8, 4), p = little_endian(table + 12, 4);
  if (little_endian(table, 4) != MAGIC || little_endian(table + 4, 4) != VERSION) return EL_EFORMAT;
  if (n * sizeof(el_record) + p * sizeof(float) > rest || (uintptr_t)table % sizeof(float)) return EL_EFORMAT;
  *records = (const el_record *)(const void *)(table + HEADER);
  *n_records = (uint32_t)n;
  *params = (const float *)(const void *)(table + HEADER + n * sizeof(el_record));
  *n_params = p;
  return EL_OK;
}
