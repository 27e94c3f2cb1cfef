/* Preloaded library that makes chosen disk calls of a process and its children fail. A shared page controls it.
 *
 * It counts the calls that change files in two folders, by function and by kind of file. The armed call (or all calls
 * from then on) fails with the errno in the page. ENOSPC works as on a real disk: half of the write succeeds, the rest
 * fails. FAULTS_PAGE names the file with the page; injector.py writes it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum function { OPEN, WRITE, FSYNC, RENAME, UNLINK, TRUNCATE, MKDIR, FUNCTIONS };
enum place { PART, DOCUMENT, OUTBOX, LEDGER, WAL, SHM, LOCK, AUDIT, REHEARSAL, HEARTBEAT, STATE, PLACES, NOWHERE = PLACES };

struct page {
    char outbox[512], state[512];
    atomic_uint calls[FUNCTIONS][PLACES];
    atomic_uint functions, places; /* bits of the armed functions and places; 0 for none */
    atomic_uint number;            /* the call that fails, counted from when it was armed */
    atomic_uint lasting;           /* whether all later calls fail too */
    atomic_uint error;
    atomic_uint seen, failed;
};

static struct page *page;

__attribute__((constructor)) static void attach(void)
{
    const char *name = getenv("FAULTS_PAGE");
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = name ? real(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    page = map == MAP_FAILED ? NULL : map;
    close(fd);
}

static int ends(const char *text, const char *with)
{
    size_t a = strlen(text), b = strlen(with);
    return a >= b && !strcmp(text + a - b, with);
}

static const char *below(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    return n && !strncmp(path, folder, n) && (path[n] == '/' || !path[n]) ? path + n : NULL;
}

static enum place place_of(const char *path)
{
    const char *rest = below(path, page->outbox);
    if (rest)
        return !*rest ? OUTBOX : ends(rest, ".part") ? PART : DOCUMENT;
    rest = below(path, page->state);
    if (!rest)
        return NOWHERE;
    return !strncmp(rest, "/scratch/tmp", 12) ? REHEARSAL
        : strstr(rest, "heartbeat") ? HEARTBEAT
        : strstr(rest, "/audit") ? AUDIT
        : ends(rest, ".sqlite") ? LEDGER
        : ends(rest, "-wal") ? WAL
        : ends(rest, "-shm") ? SHM
        : ends(rest, "/lock") ? LOCK
        : STATE;
}

static enum place place_of_descriptor(int fd)
{
    char link[64], path[PATH_MAX];
    if (!page || fd < 3)
        return NOWHERE;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return NOWHERE;
    path[n] = 0;
    return place_of(path);
}

static enum place place_at(int folder, const char *name)
{
    char link[64], path[PATH_MAX];
    if (!page)
        return NOWHERE;
    if (*name == '/')
        return place_of(name);
    if (folder == AT_FDCWD)
        return NOWHERE; /* all watched files have absolute names */
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0 || (size_t)n + strlen(name) + 2 > sizeof path)
        return NOWHERE;
    path[n] = '/';
    strcpy(path + n + 1, name);
    return place_of(path);
}

/* Return the errno for this call to fail with; 0 if it may succeed. */
static int fault(enum function function, enum place place)
{
    if (place == NOWHERE)
        return 0;
    atomic_fetch_add(&page->calls[function][place], 1);
    if (!(page->functions >> function & 1) || !(page->places >> place & 1))
        return 0;
    unsigned call = atomic_fetch_add(&page->seen, 1) + 1;
    if (call != page->number && !(page->lasting && call > page->number))
        return 0;
    atomic_fetch_add(&page->failed, 1);
    return (int)page->error;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(function, place) \
    do { \
        int error_ = fault(function, place); \
        if (error_) { \
            errno = error_; \
            return -1; \
        } \
    } while (0)

#define OPENER(name, parameters, folder, ...) \
    int name parameters \
    { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        FAIL(OPEN, place_at(folder, path)); \
        return REAL(name)(__VA_ARGS__, flags, mode); \
    }

OPENER(open, (const char *path, int flags, ...), AT_FDCWD, path)
OPENER(open64, (const char *path, int flags, ...), AT_FDCWD, path)
OPENER(openat, (int folder, const char *path, int flags, ...), folder, folder, path)
OPENER(openat64, (int folder, const char *path, int flags, ...), folder, folder, path)

/* A full disk accepts half of this write, and nothing of the next write to the same file. */
#define WRITER(name, parameters, ...) \
    ssize_t name parameters \
    { \
        static _Thread_local int full = -1; \
        enum place place = place_of_descriptor(fd); \
        if (place != NOWHERE && full == fd) { \
            full = -1; \
            errno = ENOSPC; \
            return -1; \
        } \
        int error = fault(WRITE, place); \
        if (error == ENOSPC && size > 1) { \
            full = fd; \
            size /= 2; \
        } else if (error) { \
            errno = error; \
            return -1; \
        } \
        return REAL(name)(__VA_ARGS__); \
    }

WRITER(write, (int fd, const void *data, size_t size), fd, data, size)
WRITER(pwrite, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
WRITER(pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)

int fsync(int fd) { FAIL(FSYNC, place_of_descriptor(fd)); return REAL(fsync)(fd); }
int fdatasync(int fd) { FAIL(FSYNC, place_of_descriptor(fd)); return REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { FAIL(TRUNCATE, place_of_descriptor(fd)); return REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { FAIL(TRUNCATE, place_of_descriptor(fd)); return REAL(ftruncate64)(fd, size); }
int rename(const char *from, const char *to) { FAIL(RENAME, place_at(AT_FDCWD, from)); return REAL(rename)(from, to); }
int unlink(const char *path) { FAIL(UNLINK, place_at(AT_FDCWD, path)); return REAL(unlink)(path); }
int rmdir(const char *path) { FAIL(UNLINK, place_at(AT_FDCWD, path)); return REAL(rmdir)(path); }
int unlinkat(int folder, const char *path, int flags) { FAIL(UNLINK, place_at(folder, path)); return REAL(unlinkat)(folder, path, flags); }
int mkdir(const char *path, mode_t mode) { FAIL(MKDIR, place_at(AT_FDCWD, path)); return REAL(mkdir)(path, mode); }
