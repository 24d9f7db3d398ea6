/* SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SPINS = 4000 }; /* some ten microseconds: steps follow each other closely, sleeping costs more */

typedef struct worker {
  pool *owner;
  uint32_t part;
  pthread_t thread;
} worker;

struct pool {
  uint32_t threads;
  worker workers[POOL_MAX];
  pthread_mutex_t lock;
  pthread_cond_t wake, done;
  atomic_uint round;   /* counts jobs; a change is the signal to start */
  atomic_uint pending; /* parts not finished */
  atomic_int stop;
  pool_part run;
  void *job;
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void wait_round(pool *p, unsigned seen) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load(&p->round) != seen) return;
    relax();
  }
  pthread_mutex_lock(&p->lock);
  while (atomic_load(&p->round) == seen) pthread_cond_wait(&p->wake, &p->lock);
  pthread_mutex_unlock(&p->lock);
}

static void *work(void *argument) {
  const worker *me = argument;
  pool *p = me->owner;
  for (unsigned seen = 0;; seen++) {
    wait_round(p, seen);
    if (atomic_load(&p->stop)) return NULL;
    p->run(p->job, me->part, p->threads);
    if (atomic_fetch_sub(&p->pending, 1) == 1) {
      pthread_mutex_lock(&p->lock);
      pthread_cond_signal(&p->done);
      pthread_mutex_unlock(&p->lock);
    }
  }
}

static void start_round(pool *p) {
  pthread_mutex_lock(&p->lock);
  atomic_fetch_add(&p->round, 1);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
}

size_t pool_size(void) { return sizeof(pool); }

el_status pool_start(pool **out, void *mem, uint32_t threads) {
  pool *p = mem;
  *p = (pool){.threads = 1};
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->wake, NULL);
  pthread_cond_init(&p->done, NULL);
  for (uint32_t i = 1; i < threads; i++) {
    p->workers[i] = (worker){.owner = p, .part = i};
    if (pthread_create(&p->workers[i].thread, NULL, work, &p->workers[i])) {
      pool_stop(p);
      return EL_ETHREAD;
    }
    p->threads = i + 1;
  }
  *out = p;
  return EL_OK;
}

void pool_run(pool *p, pool_part run, void *job) {
  if (!p) {
    run(job, 0, 1);
    return;
  }
  p->run = run;
  p->job = job;
  atomic_store(&p->pending, p->threads - 1);
  start_round(p);
  run(job, 0, p->threads);
  for (int i = 0; i < SPINS && atomic_load(&p->pending); i++) relax();
  pthread_mutex_lock(&p->lock);
  while (atomic_load(&p->pending)) pthread_cond_wait(&p->done, &p->lock);
  pthread_mutex_unlock(&p->lock);
}

void pool_stop(pool *p) {
  if (!p) return;
  atomic_store(&p->stop, 1);
  start_round(p);
  for (uint32_t i = 1; i < p->threads; i++) pthread_join(p->workers[i].thread, NULL);
  pthread_cond_destroy(&p->done);
  pthread_cond_destroy(&p->wake);
  pthread_mutex_destroy(&p->lock);
}
