/* A disk that fails: preloaded into a process, it makes the n-th write below one folder fail.

   Counted are write, pwrite, writev, fsync, rename, ftruncate, mkdir and the opening of files for writing, below the folder that
   faulty_disk_arm() names, in all threads; the one with the number that it says fails as it says, and so do all later ones where it is
   to stay broken. faulty_disk_tell() names a function that is told of each, to find out where it comes from. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

static void (*told)(long, const char *, const char *);

void faulty_disk_tell(void (*function)(long, const char *, const char *)) { told = function; }

long faulty_disk_count(void) { return atomic_load(&count); }

static int is_ours(const char *path) { return folder[0] && strncmp(path, folder, strlen(folder)) == 0; }

static _Thread_local char path[PATH_MAX];

static int is_our_file(int file) {
    char link[64];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* 1 where this call is to fail. */
static int fails(const char *call, const char *where) {
    long number = atomic_fetch_add(&count, 1);
    if (told) told(number, call, where);
    return fail_at >= 0 && (number == fail_at || (stays && number > fail_at));
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (size && is_our_file(file) && fails("write", path)) {
        if (error_number == SHORT_WRITE) return real(file, data, size > 1 ? size / 2 : size);
        errno = error_number;
        return -1;
    }
    return real(file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t place) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    if (size && is_our_file(file) && fails("pwrite", path) && error_number != SHORT_WRITE) {
        errno = error_number;
        return -1;
    }
    return real(file, data, size, place);
}

ssize_t writev(int file, const struct iovec *parts, int number) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (is_our_file(file) && fails("writev", path)) {
        if (error_number == SHORT_WRITE) return real(file, parts, 1);
        errno = error_number;
        return -1;
    }
    return real(file, parts, number);
}

int fsync(int file) {
    REAL(int, fsync, int);
    if (is_our_file(file) && fails("fsync", path) && error_number != SHORT_WRITE) {
        errno = error_number;
        return -1;
    }
    return real(file);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    if (is_ours(to) && fails("rename", to) && error_number != SHORT_WRITE) {
        errno = error_number;
        return -1;
    }
    return real(from, to);
}

int ftruncate64(int file, off64_t size) {
    REAL(int, ftruncate64, int, off64_t);
    if (is_our_file(file) && fails("ftruncate", path) && error_number != SHORT_WRITE) {
        errno = error_number;
        return -1;
    }
    return real(file, size);
}

int mkdir(const char *name, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    if (is_ours(name) && fails("mkdir", name) && error_number != SHORT_WRITE) {
        errno = error_number;
        return -1;
    }
    return real(name, mode);
}

/* A full disk still opens what is there; a broken or read-only one does not. */
static int opening_fails(const char *name, int makes) {
    return is_ours(name) && fails("open", name) && (makes || error_number != ENOSPC) && error_number != SHORT_WRITE;
}

int open64(const char *name, int flags, ...) {
    REAL(int, open64, const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && opening_fails(name, (flags & O_CREAT) && access(name, F_OK) != 0)) {
        errno = error_number;
        return -1;
    }
    return real(name, flags, mode);
}

FILE *fopen64(const char *name, const char *mode) {
    REAL(FILE *, fopen64, const char *, const char *);
    if (mode[0] != 'r' && opening_fails(name, access(name, F_OK) != 0)) {
        errno = error_number;
        return NULL;
    }
    return real(name, mode);
}
