/* Records what a program does to the files below RECORD_ROOT, in its order, into RECORD_FILE: to be preloaded.
 *
 * Each record is a line `operation object object offset length "name" "name"`, and the written bytes behind it. An object is
 * the inode of a file or a folder. One lock is held over each operation and its record, so the order is the true one.
 * What is written to standard error is recorded, too: it says when silverd has reported a commit.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static char root[PATH_MAX];
static size_t root_length;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void) {
    const char *of = getenv("RECORD_ROOT"), *file = getenv("RECORD_FILE");
    if (!of || !file || !realpath(of, root)) return;
    root_length = strlen(root);
    trace = REAL(open)(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* The absolute path of a name as a system call gets it, whose last part need not exist; false if it is elsewhere. */
static int path_of(int folder, const char *name, char *path) {
    char whole[PATH_MAX], parent[PATH_MAX];
    if (trace < 0 || !name) return 0;
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
    size_t length = strlen(whole);
    while (length > 1 && whole[length - 1] == '/') whole[--length] = 0;
    char *slash = strrchr(whole, '/');
    if (!slash || slash == whole) return 0;
    *slash = 0;
    if (!realpath(whole, parent)) return 0;
    snprintf(path, PATH_MAX, "%.2000s/%.2000s", parent, slash + 1);
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static int path_of_file(int file, char *path) {
    char link[64];
    if (trace < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static unsigned long long inode_of(const char *path) {
    struct stat found;
    return lstat(path, &found) == 0 ? found.st_ino : 0;
}

static unsigned long long inode_of_file(int file) {
    struct stat found;
    return fstat(file, &found) == 0 ? found.st_ino : 0;
}

static unsigned long long parent_of(const char *path) {
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = 0;
    return inode_of(parent);
}

static const char *last_of(const char *path) { return strrchr(path, '/') + 1; }

/* One write, so that the records of several processes do not mix. */
static void record(const char *operation, unsigned long long a, unsigned long long b, long long offset,
                   const char *first, const char *second, const void *bytes, size_t length) {
    char *line = malloc(2 * PATH_MAX + 256 + length);
    int head = snprintf(line, 2 * PATH_MAX + 256, "%s %llu %llu %lld %zu \"%s\" \"%s\"\n", operation, a, b, offset, length, first, second);
    if (length > 0) memcpy(line + head, bytes, length);
    size_t whole = (size_t)head + length;
    if (REAL(write)(trace, line, whole) != (ssize_t)whole) abort();
    free(line);
}

static int is_recorded(int flags) { return (flags & (O_CREAT | O_TRUNC)) && (flags & O_TMPFILE) != O_TMPFILE; }

static int open_file(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    __typeof__(&openat64) real = REAL(openat64);
    if (!is_recorded(flags) || !path_of(folder, name, path)) return real(folder, name, flags, mode);
    pthread_mutex_lock(&lock);
    unsigned long long before = inode_of(path);
    int file = real(folder, name, flags, mode);
    int failure = errno;
    if (file >= 0 && !before) record("create", parent_of(path), inode_of_file(file), 0, last_of(path), "", NULL, 0);
    else if (file >= 0 && (flags & O_TRUNC)) record("truncate", inode_of_file(file), 0, 0, "", "", NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = failure;
    return file;
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

/* Runs the call, and records it if it succeeded. */
#define RECORDED(is_ours, call, on_success)        \
    do {                                           \
        if (!(is_ours)) return call;               \
        pthread_mutex_lock(&lock);                 \
        __typeof__(call) result = call;            \
        int failure = errno;                       \
        if (result >= 0) { on_success; }           \
        pthread_mutex_unlock(&lock);               \
        errno = failure;                           \
        return result;                             \
    } while (0)

static void record_bytes(int file, long long offset, const struct iovec *parts, int count, size_t length) {
    char *bytes = malloc(length + 1), *to = bytes;
    for (int part = 0; part < count && length > (size_t)(to - bytes); part++) {
        size_t left = length - (size_t)(to - bytes), take = parts[part].iov_len < left ? parts[part].iov_len : left;
        memcpy(to, parts[part].iov_base, take);
        to += take;
    }
    record("write", inode_of_file(file), 0, offset, "", "", bytes, length);
    free(bytes);
}

/* Where the next `write` of a file goes. */
static long long position_of(int file) {
    struct stat found;
    if (fcntl(file, F_GETFL) & O_APPEND) return fstat(file, &found) == 0 ? found.st_size : 0;
    return lseek64(file, 0, SEEK_CUR);
}

ssize_t write(int file, const void *bytes, size_t length) {
    char path[PATH_MAX];
    __typeof__(&write) real = REAL(write);
    struct iovec part = {(void *)bytes, length};
    if (trace >= 0 && file == 2) {
        pthread_mutex_lock(&lock);
        ssize_t done = real(file, bytes, length);
        int failure = errno;
        record("report", 0, 0, 0, "", "", bytes, length);
        pthread_mutex_unlock(&lock);
        errno = failure;
        return done;
    }
    if (!path_of_file(file, path)) return real(file, bytes, length);
    long long at = position_of(file);
    RECORDED(1, real(file, bytes, length), record_bytes(file, at, &part, 1, (size_t)result));
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    __typeof__(&writev) real = REAL(writev);
    if (!path_of_file(file, path)) return real(file, parts, count);
    long long at = position_of(file);
    RECORDED(1, real(file, parts, count), record_bytes(file, at, parts, count, (size_t)result));
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    char path[PATH_MAX];
    __typeof__(&pwrite64) real = REAL(pwrite64);
    struct iovec part = {(void *)bytes, length};
    RECORDED(path_of_file(file, path), real(file, bytes, length, at), record_bytes(file, at, &part, 1, (size_t)result));
}
ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) { return pwrite64(file, bytes, length, at); }

/* The standard library copies by read and write then. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned flags) {
    (void)in, (void)in_at, (void)out, (void)out_at, (void)length, (void)flags;
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t length) {
    char path[PATH_MAX];
    if (path_of_file(out, path)) { errno = ENOSYS; return -1; }
    return REAL(sendfile64)(out, in, at, length);
}

int ftruncate64(int file, off64_t length) {
    char path[PATH_MAX];
    RECORDED(path_of_file(file, path), REAL(ftruncate64)(file, length),
             record("truncate", inode_of_file(file), 0, length, "", "", NULL, 0));
}
int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    if (!path_of(from_folder, from, source) || !path_of(to_folder, to, target))
        return REAL(renameat2)(from_folder, from, to_folder, to, flags);
    unsigned long long source_parent = parent_of(source), target_parent = parent_of(target);
    RECORDED(1, REAL(renameat2)(from_folder, from, to_folder, to, flags),
             record("rename", source_parent, target_parent, 0, last_of(source), last_of(target), NULL, 0));
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) { return renameat2(from_folder, from, to_folder, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    char source[PATH_MAX], target[PATH_MAX];
    if (!path_of(from_folder, from, source) || !path_of(to_folder, to, target))
        return REAL(linkat)(from_folder, from, to_folder, to, flags);
    unsigned long long inode = inode_of(source);
    RECORDED(1, REAL(linkat)(from_folder, from, to_folder, to, flags),
             record("link", parent_of(target), inode, 0, last_of(target), "", NULL, 0));
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    RECORDED(path_of(folder, name, path), REAL(unlinkat)(folder, name, flags),
             record("unlink", parent_of(path), 0, 0, last_of(path), "", NULL, 0));
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    RECORDED(path_of(folder, name, path), REAL(mkdirat)(folder, name, mode),
             record("mkdir", parent_of(path), inode_of(path), 0, last_of(path), "", NULL, 0));
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int fsync(int file) {
    char path[PATH_MAX];
    RECORDED(path_of_file(file, path), REAL(fsync)(file), record("sync", inode_of_file(file), 0, 0, "", "", NULL, 0));
}
int fdatasync(int file) { return fsync(file); }
int syncfs(int file) {
    char path[PATH_MAX];
    RECORDED(path_of_file(file, path), REAL(syncfs)(file), record("sync-all", 0, 0, 0, "", "", NULL, 0));
}
