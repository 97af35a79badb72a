/* Faults of the machine, loaded before the C library (LD_PRELOAD); tests/machine.py compiles and steers it.
 *
 * Rules: it changes nothing but the calls that are armed in the control file, which both processes have mapped: calls
 * on what lies below one folder, thread starts, and the wall clock. Counting is atomic; no lock is ever taken.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE, FLUSH, FLUSH_FOLDER, LINK, RENAME, CREATE, FOLDER, REMOVE, THREAD, READ, OPEN, NAMES, CALLS };

/* The layout of machine.py's `_FAULT` and `_HEAD`. */
struct fault {
    int64_t skip;   /* so many calls pass first */
    int64_t times;  /* so many of the next ones are hit */
    int64_t hits;   /* so many were */
    int32_t error;  /* errno, when it fails; 0: it does nothing, and says that it is done */
    int32_t signal; /* what the process gets, when it is killed */
    int32_t after;  /* whether the call is done before that */
    int32_t unused;
};
struct control {
    int64_t clock; /* nanoseconds by which the wall clock is wrong */
    char folder[1024];
    struct fault faults[CALLS];
};
static struct control *control;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MACHINE_CONTROL");
    int descriptor = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped != MAP_FAILED)
        control = mapped;
}

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (next == NULL) \
        next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* The fault that this call meets, if it is armed and its turn. */
static struct fault *turn(int call) {
    struct fault *fault = &control->faults[call];
    if (__atomic_load_n(&fault->times, __ATOMIC_SEQ_CST) <= 0)
        return NULL;
    if (__atomic_fetch_sub(&fault->skip, 1, __ATOMIC_SEQ_CST) > 0)
        return NULL;
    if (__atomic_fetch_sub(&fault->times, 1, __ATOMIC_SEQ_CST) <= 0)
        return NULL;
    __atomic_fetch_add(&fault->hits, 1, __ATOMIC_SEQ_CST);
    return fault;
}

static int armed(int call) { return control != NULL && control->faults[call].times > 0; }

/* Whether `path`, seen from the folder `at`, or what is open as `at` itself, lies below the folder. */
static int below(int at, const char *path) {
    char link[64], place[PATH_MAX] = "";
    size_t size = strlen(control->folder);
    if (path == NULL || path[0] != '/') {
        ssize_t count;
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        count = readlink(link, place, sizeof place - 1);
        if (count < 0)
            return 0;
        place[count] = 0;
        path = place;
    }
    return strncmp(path, control->folder, size) == 0 && (path[size] == 0 || path[size] == '/');
}

/* Around each call: fail, or do nothing and return 0, or kill before or after it, or let it be. */
#define AROUND(call, matches, bad, real) \
    do { \
        struct fault *fault = armed(call) && (matches) ? turn(call) : NULL; \
        if (fault == NULL) \
            return real; \
        if (fault->signal == 0) { \
            if (fault->error == 0) \
                return 0; \
            errno = fault->error; \
            return bad; \
        } \
        if (!fault->after) \
            kill(getpid(), fault->signal); \
        __typeof__(real) result = real; \
        if (fault->after) \
            kill(getpid(), fault->signal); \
        return result; \
    } while (0)

/* --- bytes --- */

#define WRITES(...) AROUND(WRITE, below(descriptor, NULL), -1, next(descriptor, __VA_ARGS__))
ssize_t write(int descriptor, const void *bytes, size_t count) {
    NEXT(write);
    WRITES(bytes, count);
}
ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t at) {
    NEXT(pwrite);
    WRITES(bytes, count, at);
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t at) {
    NEXT(pwrite64);
    WRITES(bytes, count, at);
}
ssize_t writev(int descriptor, const struct iovec *pieces, int count) {
    NEXT(writev);
    WRITES(pieces, count);
}
ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t at) {
    NEXT(pwritev);
    WRITES(pieces, count, at);
}
ssize_t pwritev64(int descriptor, const struct iovec *pieces, int count, off64_t at) {
    NEXT(pwritev64);
    WRITES(pieces, count, at);
}
ssize_t pwritev2(int descriptor, const struct iovec *pieces, int count, off_t at, int flags) {
    NEXT(pwritev2);
    WRITES(pieces, count, at, flags);
}
ssize_t pwritev64v2(int descriptor, const struct iovec *pieces, int count, off64_t at, int flags) {
    NEXT(pwritev64v2);
    WRITES(pieces, count, at, flags);
}

#define READS(...) AROUND(READ, below(descriptor, NULL), -1, next(descriptor, __VA_ARGS__))
ssize_t read(int descriptor, void *bytes, size_t count) {
    NEXT(read);
    READS(bytes, count);
}
ssize_t readv(int descriptor, const struct iovec *pieces, int count) {
    NEXT(readv);
    READS(pieces, count);
}

/* --- flushing --- */

static int flushes(int descriptor) {
    struct stat state;
    return fstat(descriptor, &state) == 0 && S_ISDIR(state.st_mode) ? FLUSH_FOLDER : FLUSH;
}
int fsync(int descriptor) {
    NEXT(fsync);
    AROUND(flushes(descriptor), below(descriptor, NULL), -1, next(descriptor));
}
int fdatasync(int descriptor) {
    NEXT(fdatasync);
    AROUND(flushes(descriptor), below(descriptor, NULL), -1, next(descriptor));
}
int syncfs(int descriptor) { /* of bytes, whatever it is named by */
    NEXT(syncfs);
    AROUND(FLUSH, below(descriptor, NULL), -1, next(descriptor));
}

/* --- names --- */

int link(const char *old, const char *new) {
    NEXT(link);
    AROUND(LINK, below(AT_FDCWD, new), -1, next(old, new));
}
int linkat(int from, const char *old, int to, const char *new, int flags) {
    NEXT(linkat);
    AROUND(LINK, below(to, new), -1, next(from, old, to, new, flags));
}
int rename(const char *old, const char *new) {
    NEXT(rename);
    AROUND(RENAME, below(AT_FDCWD, new), -1, next(old, new));
}
int renameat(int from, const char *old, int to, const char *new) {
    NEXT(renameat);
    AROUND(RENAME, below(to, new), -1, next(from, old, to, new));
}
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    NEXT(renameat2);
    AROUND(RENAME, below(to, new), -1, next(from, old, to, new, flags));
}
int unlink(const char *path) {
    NEXT(unlink);
    AROUND(REMOVE, below(AT_FDCWD, path), -1, next(path));
}
int unlinkat(int at, const char *path, int flags) {
    NEXT(unlinkat);
    AROUND(REMOVE, below(at, path), -1, next(at, path, flags));
}
int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    AROUND(FOLDER, below(AT_FDCWD, path), -1, next(path, mode));
}
int mkdirat(int at, const char *path, mode_t mode) {
    NEXT(mkdirat);
    AROUND(FOLDER, below(at, path), -1, next(at, path, mode));
}

DIR *fdopendir(int descriptor) { /* how Python lists a folder that is open */
    NEXT(fdopendir);
    AROUND(NAMES, below(descriptor, NULL), NULL, next(descriptor));
}

#define MAKES ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE)
#define OPENS (MAKES ? CREATE : OPEN)
#define IS_FILE (MAKES || (flags & O_DIRECTORY) == 0)
#define MODE \
    mode_t mode = 0; \
    if (MAKES) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }
int open(const char *path, int flags, ...) {
    MODE
    NEXT(open);
    AROUND(OPENS, IS_FILE && below(AT_FDCWD, path), -1, next(path, flags, mode));
}
int open64(const char *path, int flags, ...) {
    MODE
    NEXT(open64);
    AROUND(OPENS, IS_FILE && below(AT_FDCWD, path), -1, next(path, flags, mode));
}
int openat(int at, const char *path, int flags, ...) {
    MODE
    NEXT(openat);
    AROUND(OPENS, IS_FILE && below(at, path), -1, next(at, path, flags, mode));
}
int openat64(int at, const char *path, int flags, ...) {
    MODE
    NEXT(openat64);
    AROUND(OPENS, IS_FILE && below(at, path), -1, next(at, path, flags, mode));
}

/* --- threads --- */

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*work)(void *), void *with) {
    NEXT(pthread_create);
    AROUND(THREAD, 1, fault->error, next(thread, how, work, with));
}

/* --- the wall clock --- */

int clock_gettime(clockid_t clock, struct timespec *now) {
    NEXT(clock_gettime);
    int result = next(clock, now);
    if (result == 0 && control != NULL && clock == CLOCK_REALTIME && control->clock != 0) {
        int64_t whole = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + control->clock;
        int64_t rest = whole % INT64_C(1000000000);
        if (rest < 0)
            rest += INT64_C(1000000000);
        now->tv_sec = (whole - rest) / INT64_C(1000000000);
        now->tv_nsec = rest;
    }
    return result;
}
time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into != NULL)
        *into = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict into, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    into->tv_sec = now.tv_sec;
    into->tv_usec = now.tv_nsec / 1000;
    return 0;
}
