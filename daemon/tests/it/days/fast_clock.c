/* A wall clock that runs faster than the real one, for one program: to be preloaded.
 *
 * FAST_CLOCK is `SINCE FROM SPEED`: at SINCE nanoseconds of the real wall clock, this one is at FROM, and it is SPEED times as fast.
 * All programs with the same value have the same time, also if they start later.
 *
 * Timed waits stay as they are: their times come from the monotonic clock, or from timespec_get, which is not changed here.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int64_t since, from, speed;

__attribute__((constructor)) static void start(void) {
    const char *text = getenv("FAST_CLOCK");
    if (!text || sscanf(text, "%" SCNd64 " %" SCNd64 " %" SCNd64, &since, &from, &speed) != 3) speed = 0;
}

static void move(struct timespec *time) {
    if (speed == 0) return;
    int64_t now = from + (time->tv_sec * SECOND + time->tv_nsec - since) * speed;
    time->tv_sec = now / SECOND, time->tv_nsec = now % SECOND;
}

#include "wall_clock.h"
