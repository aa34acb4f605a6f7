/* A disk that fails: preloaded into a process, it makes the n-th write below one folder fail.

   Counted are write, pwrite, writev, fsync, rename and ftruncate of files below the folder that faulty_disk_arm() names, in all threads;
   the one with the number that it says fails as it says, and so do all later ones where it is to stay broken. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SHORT_WRITE = -1 };

static char folder[PATH_MAX];
static atomic_long count;
static long fail_at = -1;
static int error_number, stays;

void faulty_disk_arm(const char *path, long number, int error, int broken) {
    fail_at = -1;
    snprintf(folder, sizeof folder, "%s", path);
    error_number = error;
    stays = broken;
    atomic_store(&count, 0);
    fail_at = number;
}

long faulty_disk_count(void) { return atomic_load(&count); }

static int is_ours(const char *path) { return folder[0] && strncmp(path, folder, strlen(folder)) == 0; }

static int is_our_file(int file) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* 1 where this call is to fail. */
static int fails(void) {
    long number = atomic_fetch_add(&count, 1);
    return fail_at >= 0 && (number == fail_at || (stays && number > fail_at));
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (size && is_our_file(file) && fails()) {
        if (error_number == SHORT_WRITE) return real(file, data, size > 1 ? size / 2 : size);
        errno = error_number;
        return -1;
    }
    return real(file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t place) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    if (size && is_our_file(file) && fails() && error_number != SHORT_WRITE) {
        errno = error_number;
        return -1;
    }
    return real(file, data, size, place);
}

ssize_t writev(int file, const struct iovec *parts, int number) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (is_our_file(file) && fails()) {
        if (error_number == SHORT_WRITE) return real(file, parts, 1);
        errno = error_number;
        return -1;
    }
    return real(file, parts, number);
}

int fsync(int file) {
    REAL(int, fsync, int);
    if (is_our_file(file) && fails() && error_number != SHORT_WRITE) {
        errno = error_number;
        return -1;
    }
    return real(file);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    if (is_ours(to) && fails() && error_number != SHORT_WRITE) {
        errno = error_number;
        return -1;
    }
    return real(from, to);
}
