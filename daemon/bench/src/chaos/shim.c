/* Faults of the disk and of the clock for one program: to be preloaded.
 *
 * CHAOS_CONTROL names a file of three 64-bit integers, which silverd-bench changes while the program runs: the nanoseconds that
 * the wall clock is ahead; the microseconds that a synchronization, a rename and a link take longer; whether the disk is full.
 * Only files below CHAOS_ROOT are slow or full.
 *
 * Timed waits stay as they are: their times come from the monotonic clock, or from timespec_get, which is not changed here.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t clock_ahead_ns, delay_us, is_full;
};

static volatile const struct control *control;
static char root[PATH_MAX];
static size_t root_length;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void) {
    const char *of = getenv("CHAOS_ROOT"), *name = getenv("CHAOS_CONTROL");
    if (!of || !name || !realpath(of, root)) return;
    root_length = strlen(root);
    int file = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) control = mapped;
}

static int64_t clock_ahead_ns(void) { return control ? control->clock_ahead_ns : 0; }
static int is_full(void) { return control && control->is_full; }
static int is_slow(void) { return control && control->delay_us > 0; }

static int is_below_root(const char *path) {
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static int file_is_ours(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below_root(path);
}

/* Whether a name, whose last part need not exist, is below the root. */
static int name_is_ours(int folder, const char *name) {
    char whole[PATH_MAX], parent[PATH_MAX];
    if (!name) return 0;
    if (name[0] == '/') {
        snprintf(whole, sizeof whole, "%s", name);
    } else {
        char link[64];
        if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, parent, sizeof parent - 1);
        if (length < 0) return 0;
        parent[length] = 0;
        snprintf(whole, sizeof whole, "%.2000s/%.2000s", parent, name);
    }
    if (is_below_root(whole)) return 1;
    char *slash = strrchr(whole, '/');
    if (!slash || slash == whole) return 0;
    *slash = 0;
    return realpath(whole, parent) && is_below_root(parent);
}

static void wait_for_disk(void) {
    int64_t delay = control->delay_us;
    struct timespec pause = {delay / 1000000, delay % 1000000 * 1000};
    nanosleep(&pause, NULL);
}

#define NO_SPACE_IF(is_ours)                  \
    do {                                      \
        if (is_full() && (is_ours)) {         \
            errno = ENOSPC;                   \
            return -1;                        \
        }                                     \
    } while (0)

#define SLOW_IF(is_ours)                             \
    do {                                             \
        if (is_slow() && (is_ours)) wait_for_disk(); \
    } while (0)

/* The wall clock. */

static void move(struct timespec *time) {
    int64_t ahead = clock_ahead_ns();
    int64_t nanos = time->tv_nsec + ahead % 1000000000;
    time->tv_sec += ahead / 1000000000;
    if (nanos < 0) nanos += 1000000000, time->tv_sec -= 1;
    if (nanos >= 1000000000) nanos -= 1000000000, time->tv_sec += 1;
    time->tv_nsec = nanos;
}

#include "wall_clock.h"

/* What a full disk refuses. */

static int open_file(int folder, const char *name, int flags, mode_t mode) {
    if (flags & O_CREAT) NO_SPACE_IF(name_is_ours(folder, name));
    return REAL(openat64)(folder, name, flags, mode);
}

#define MODE_OF(flags)                     \
    mode_t mode = 0;                       \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest;                      \
        va_start(rest, flags);             \
        mode = (mode_t)va_arg(rest, int);  \
        va_end(rest);                      \
    }

int open(const char *name, int flags, ...) { MODE_OF(flags) return open_file(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE_OF(flags) return open_file(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE_OF(flags) return open_file(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE_OF(flags) return open_file(folder, name, flags, mode); }

ssize_t write(int file, const void *bytes, size_t length) {
    static __typeof__(&write) real;
    if (!real) real = REAL(write);
    NO_SPACE_IF(file_is_ours(file));
    return real(file, bytes, length);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    static __typeof__(&writev) real;
    if (!real) real = REAL(writev);
    NO_SPACE_IF(file_is_ours(file));
    return real(file, parts, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    static __typeof__(&pwrite64) real;
    if (!real) real = REAL(pwrite64);
    NO_SPACE_IF(file_is_ours(file));
    return real(file, bytes, length, at);
}
ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) { return pwrite64(file, bytes, length, at); }

/* The standard library copies by read and write then. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned flags) {
    (void)in, (void)in_at, (void)out, (void)out_at, (void)length, (void)flags;
    errno = ENOSYS;
    return -1;
}

int mkdir(const char *name, mode_t mode) {
    NO_SPACE_IF(name_is_ours(AT_FDCWD, name));
    return REAL(mkdir)(name, mode);
}

/* What a slow disk delays. */

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    SLOW_IF(name_is_ours(to_folder, to));
    return REAL(renameat2)(from_folder, from, to_folder, to, flags);
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) { return renameat2(from_folder, from, to_folder, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    NO_SPACE_IF(name_is_ours(to_folder, to));
    SLOW_IF(name_is_ours(to_folder, to));
    return REAL(linkat)(from_folder, from, to_folder, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

/* Both: a full disk refuses to synchronize what it has no room for. */

#define SYNCHRONIZATION(name)             \
    int name(int file) {                  \
        NO_SPACE_IF(file_is_ours(file));  \
        SLOW_IF(file_is_ours(file));      \
        return REAL(name)(file);          \
    }

SYNCHRONIZATION(fsync)
SYNCHRONIZATION(fdatasync)
SYNCHRONIZATION(syncfs)
