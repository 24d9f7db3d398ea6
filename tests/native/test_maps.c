/* SPDX-License-Identifier: Apache-2.0
 * Convolution and pooling against plain loops in double, on every instruction set; nets of maps learn the same to the
 * bit with any number of threads, in memory that is planned exactly; impossible maps are refused. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "edgelearn.h"
#include "philox.h"

enum { BATCH = 5, CLASSES = 3, MOST = 1 << 15 };

typedef struct shape {
  uint32_t h, w, channels, filters, kh, kw, sh, sw, same, groups;
} shape;

static const shape shapes[] = {
    {7, 5, 3, 4, 3, 3, 1, 1, 1, 1},    {7, 5, 3, 4, 3, 3, 2, 1, 0, 1}, {9, 8, 4, 6, 3, 2, 2, 3, 1, 2},
    {6, 6, 5, 5, 3, 3, 1, 1, 1, 5},    {7, 9, 4, 4, 3, 5, 2, 2, 1, 4}, {1, 30, 2, 17, 1, 5, 1, 2, 0, 1},
    {4, 4, 33, 16, 1, 1, 1, 1, 0, 1},  {3, 3, 2, 8, 3, 3, 1, 1, 0, 1}, {2, 2, 3, 3, 5, 5, 1, 1, 1, 1},
    {12, 12, 8, 40, 3, 3, 1, 1, 1, 1}, {5, 5, 2, 6, 2, 2, 1, 1, 0, 2}};

static float params[MOST], start[MOST], x[MOST], out[MOST];
static int32_t labels[BATCH];
static _Alignas(64) unsigned char memory[1 << 22];

static float draw(uint32_t i, uint32_t stream) { return (float)(philox(3, i, stream, 0, 9).w[0] * 0x1p-31 - 1); }

static uint32_t side(uint32_t n, uint32_t k, uint32_t s, uint32_t same) {
  return same ? (n + s - 1) / s : (n - k) / s + 1;
}

static int pad(uint32_t n, uint32_t k, uint32_t s, uint32_t same) {
  const int total = same ? (int)((side(n, k, s, same) - 1) * s + k) - (int)n : 0;
  return total > 0 ? total / 2 : 0;
}

static el_record conv_record(const shape *s) {
  const uint32_t weights = s->kh * s->kw * (s->channels / s->groups) * s->filters;
  return (el_record){.op = EL_CONV,
                     .input = {-1, -1},
                     .units = s->filters,
                     .active = s->filters,
                     .fan_in = s->channels,
                     .fan_in_active = s->channels,
                     .stride = s->filters,
                     .params = weights + s->filters,
                     .flags = EL_FLAG_BIAS | (s->same ? EL_FLAG_SAME : 0) | s->groups << 16,
                     .size = s->h << 16 | s->w,
                     .window = s->kh << 24 | s->kw << 16 | s->sh << 8 | s->sw};
}

static el_record pool_record(const shape *s, uint32_t op) {
  el_record r = conv_record(s);
  r.op = op, r.units = r.active = r.stride = s->channels, r.params = 0, r.flags = s->same ? EL_FLAG_SAME : 0;
  if (op == EL_GLOBAL_AVGPOOL) r.window = 0, r.flags = 0;
  return r;
}

static el_record after(const el_record *before, uint32_t op, uint32_t features, uint32_t units) {
  el_record r = {.op = op, .units = units, .active = units, .fan_in = features, .fan_in_active = features};
  r.input[0] = before->input[0] + 1, r.input[1] = -1;
  r.stride = units, r.offset = before->offset + before->params, r.block = before->block;
  return r;
}

/* Output (oh, ow, u) of a convolution of one sample. */
static double conv_at(const shape *s, const float *image, uint32_t oh, uint32_t ow, uint32_t u) {
  const uint32_t cg = s->channels / s->groups, ug = s->filters / s->groups, weights = s->kh * s->kw * cg * s->filters;
  double sum = params[weights + u];
  for (uint32_t k = 0; k < s->kh * s->kw * cg; k++) {
    const int h = (int)(oh * s->sh + k / (s->kw * cg)) - pad(s->h, s->kh, s->sh, s->same);
    const int w = (int)(ow * s->sw + k / cg % s->kw) - pad(s->w, s->kw, s->sw, s->same);
    if (h < 0 || w < 0 || h >= (int)s->h || w >= (int)s->w) continue;
    const uint32_t c = u / ug * cg + k % cg;
    sum += (double)image[((uint32_t)h * s->w + (uint32_t)w) * s->channels + c] * params[k * s->filters + u];
  }
  return sum;
}

static double pool_at(const shape *s, const float *image, uint32_t op, uint32_t oh, uint32_t ow, uint32_t c) {
  double most = -INFINITY, sum = 0, count = 0;
  for (uint32_t k = 0; k < s->kh * s->kw; k++) {
    const int h = (int)(oh * s->sh + k / s->kw) - pad(s->h, s->kh, s->sh, s->same);
    const int w = (int)(ow * s->sw + k % s->kw) - pad(s->w, s->kw, s->sw, s->same);
    if (h < 0 || w < 0 || h >= (int)s->h || w >= (int)s->w) continue;
    const double v = image[((uint32_t)h * s->w + (uint32_t)w) * s->channels + c];
    most = v > most ? v : most, sum += v, count++;
  }
  return op == EL_MAXPOOL ? most : sum / count;
}

static el_net *open_net(const el_record *records, uint32_t n, uint64_t count, el_config config) {
  el_sizes sizes;
  el_net *net = NULL;
  CHECK(el_net_size(records, n, &config, &sizes) == EL_OK, "size");
  CHECK(sizes.arena <= sizeof memory, "arena %zu", (size_t)sizes.arena);
  memset(memory, 0xFF, sizeof memory); /* NaN: nothing may be read before it is written */
  CHECK(el_net_init(&net, memory, sizes.arena - 1, records, n, params, count, &config) == EL_ENOMEM, "one less");
  CHECK(el_net_init(&net, memory, sizes.arena, records, n, params, count, &config) == EL_OK, "init");
  return net;
}

static void forward(const el_record *records, uint32_t n, uint32_t isa, uint32_t threads) {
  el_net *net = open_net(records, n, MOST, (el_config){.batch = 2, .threads = threads, .isa = isa});
  const el_samples samples = {.x = x, .n = BATCH};
  CHECK(el_net_forward(net, &samples, out) == EL_OK, "forward");
  el_net_close(net);
}

static void test_conv(const shape *s, uint32_t isa, uint32_t threads) {
  const el_record record = conv_record(s);
  forward(&record, 1, isa, threads);
  const uint32_t oh = side(s->h, s->kh, s->sh, s->same), ow = side(s->w, s->kw, s->sw, s->same);
  for (uint32_t i = 0; i < BATCH * oh * ow * s->filters; i++) {
    const uint32_t u = i % s->filters, p = i / s->filters % (oh * ow), b = i / s->filters / (oh * ow);
    const double want = conv_at(s, x + (size_t)b * s->h * s->w * s->channels, p / ow, p % ow, u);
    CHECK(fabs(out[i] - want) < 2e-5 * (1 + fabs(want)), "%s conv %u of %u x %u: %g, not %g", el_isa_name(isa), i, s->h,
          s->w, (double)out[i], want);
  }
}

/* A 1 x 1 convolution that copies its input, and the pooling behind it. */
static void test_pool(const shape *s, uint32_t op, uint32_t isa, uint32_t threads) {
  shape copy = *s;
  copy.filters = s->channels, copy.kh = copy.kw = copy.sh = copy.sw = copy.groups = 1;
  el_record records[2] = {conv_record(&copy), pool_record(s, op)};
  records[1].input[0] = 0;
  memset(params, 0, sizeof params);
  for (uint32_t c = 0; c < s->channels; c++) params[c * s->channels + c] = 1;
  forward(records, 2, isa, threads);
  memcpy(params, start, sizeof params);
  const uint32_t oh = side(s->h, s->kh, s->sh, s->same), ow = side(s->w, s->kw, s->sw, s->same);
  for (uint32_t i = 0; i < BATCH * oh * ow * s->channels; i++) {
    const uint32_t c = i % s->channels, p = i / s->channels % (oh * ow), b = i / s->channels / (oh * ow);
    const double want = pool_at(s, x + (size_t)b * s->h * s->w * s->channels, op, p / ow, p % ow, c);
    CHECK(fabs(out[i] - want) < 1e-6 * (1 + fabs(want)), "pool %u: %g, not %g", i, (double)out[i], want);
  }
}

/* Convolution, normalisation, activation, pooling, and an output. */
static uint32_t small_net(const shape *s, el_record records[6]) {
  records[0] = conv_record(s);
  const uint32_t oh = side(s->h, s->kh, s->sh, s->same), ow = side(s->w, s->kw, s->sw, s->same);
  records[1] = after(records, EL_BATCHNORM, s->filters, s->filters);
  records[1].params = 4 * s->filters, records[1].arg[0] = 1e-5f, records[1].arg[1] = 0.9f;
  records[2] = after(records + 1, EL_GELU, s->filters, s->filters);
  records[3] = after(records + 2, EL_MAXPOOL, s->filters, s->filters);
  records[3].window = 0x02020101u, records[3].flags = EL_FLAG_SAME;
  for (int i = 1; i < 4; i++) records[i].size = oh << 16 | ow;
  records[4] = after(records + 3, EL_DENSE, oh * ow * s->filters, CLASSES);
  records[4].params = (oh * ow * s->filters + 1) * CLASSES, records[4].flags = EL_FLAG_BIAS, records[4].block = 1;
  records[5] = after(records + 4, EL_SOFTMAX, CLASSES, CLASSES);
  for (uint32_t c = 0; c < s->filters; c++) params[records[1].offset + 3 * s->filters + c] = 1;
  return 6;
}

static double learn(const shape *s, uint32_t isa, uint32_t threads, uint32_t micro, float clip) {
  el_record records[6];
  memcpy(params, start, sizeof params);
  const uint32_t n = small_net(s, records);
  const el_rule rule = {.objective = EL_READOUT,
                        .group = 1,
                        .targets = CLASSES,
                        .scale = 1,
                        .temperature = 0.1f,
                        .huber = 1,
                        .grid = 2,
                        .seed = 5,
                        .clip = clip};
  const el_optimizer adam = {EL_ADAM, 0, 0.9f, 0.999f, 1e-6f};
  el_net *net = open_net(
      records, n, MOST,
      (el_config){
          .rule = rule, .optimizer = adam, .batch = BATCH, .train = 1, .threads = threads, .isa = isa, .micro = micro});
  const el_samples samples = {.x = x, .labels = labels, .n = BATCH};
  el_stats stats = {0};
  const int steps = s->h * s->w > 100 ? 8 : 40; /* large maps have learned in a few, each of which takes long */
  for (int i = 0; i < steps; i++) {
    stats = (el_stats){0};
    CHECK(el_net_step(net, &samples, 0.01f, &stats) == EL_OK, "step");
  }
  el_net_close(net);
  return stats.loss / BATCH;
}

static void test_learning(const shape *s, uint32_t isa) {
  static float alone[MOST];
  const double loss = learn(s, isa, 1, 0, 0);
  CHECK(loss < 0.6, "%s loss of %u x %u ends at %g", el_isa_name(isa), s->h, s->w, loss);
  memcpy(alone, params, sizeof alone);
  learn(s, isa, 2, 0, 0);
  CHECK(!memcmp(alone, params, sizeof alone), "%s two threads learn something else", el_isa_name(isa));
  CHECK(learn(s, isa, 1, 3, 0) < 0.5, "micro-batches learn");
  learn(s, isa, 1, 0, 1e9f);
  double worst = 0;
  for (uint32_t i = 0; i < MOST; i++) worst = fmax(worst, fabs((double)alone[i] - params[i]));
  CHECK(worst < 5e-3, "a limit that never binds changes weights by %g", worst);
}

static void test_bad_maps_are_refused(void) {
  const shape *s = shapes;
  const el_config config = {.batch = 2, .threads = 1};
  el_sizes sizes;
  el_record r = conv_record(s);
  const struct {
    uint32_t *field, value;
  } bad[] = {{&r.size, 0},
             {&r.size, 7u << 16},
             {&r.window, 0x03000101u},
             {&r.window, 0x03030100u},
             {&r.window, 0x09090101u},
             {&r.params, r.params + 1},
             {&r.flags, EL_FLAG_BIAS | 2u << 16},
             {&r.units, 0}};
  r.flags &= ~(uint32_t)EL_FLAG_SAME;
  CHECK(el_net_size(&r, 1, &config, &sizes) == EL_OK, "a good one is taken");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const uint32_t keep = *bad[i].field;
    *bad[i].field = bad[i].value;
    CHECK(el_net_size(&r, 1, &config, &sizes) == EL_EINVAL, "bad map %zu is taken", i);
    *bad[i].field = keep;
  }
}

int main(void) {
  for (uint32_t i = 0; i < MOST; i++) start[i] = params[i] = 0.3f * draw(i, 0), x[i] = draw(i, 1);
  for (int32_t i = 0; i < BATCH; i++) labels[i] = i % CLASSES;
  for (uint32_t isa = EL_ISA_SCALAR; isa <= EL_ISA_NEON; isa++) {
    if (!el_isa_available(isa)) continue;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
      for (uint32_t threads = 1; threads <= 2; threads++) {
        test_conv(shapes + i, isa, threads);
        for (uint32_t op = EL_MAXPOOL; op <= EL_AVGPOOL; op++) test_pool(shapes + i, op, isa, threads);
      }
      test_learning(shapes + i, isa);
    }
  }
  test_bad_maps_are_refused();
  return checks_report();
}
