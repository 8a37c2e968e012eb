/* Faults at the k-th file operation under one folder, for LD_PRELOAD on Linux.

   Counted are the calls that change files: opening for writing, write, rename, link,
   mkdir, unlink, rmdir, truncate and sync. `fault_arm` begins the count.

   At operation k the process
     KILL  is killed before the operation,
     TORN  is killed after half of a write; only writes are counted,
     FULL  finds the disk full, and at every later operation that needs space,
     ERROR gets an input/output error, once,
     READ_ONLY finds the disk read-only from here on,
     NO_FILES  can open no further file from here on, to read neither. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE, KILL, TORN, FULL, ERROR, READ_ONLY, NO_FILES };

/* What an operation needs. */
enum { SPACE = 1, DESCRIPTOR = 2 };

static char folder[PATH_MAX];
static long at;
static int action;
static atomic_long count;

void fault_arm(const char *under, long k, int what) {
  atomic_store(&count, 0);
  at = k;
  action = what;
  strncpy(folder, under, sizeof folder - 1);
}

long fault_count(void) { return atomic_load(&count); }

static int is_under(const char *path) {
  size_t length = strlen(folder);
  if (length == 0 || strncmp(path, folder, length) != 0) return 0;
  return path[length] == '/' || path[length] == 0;
}

static int is_file_under(int descriptor) {
  char link[64], path[PATH_MAX];
  if (folder[0] == 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return is_under(path);
}

static int is_path_under(int base, const char *path) {
  char link[64], whole[PATH_MAX * 2];
  if (folder[0] == 0) return 0;
  if (path[0] == '/') return is_under(path);
  if (base == AT_FDCWD)
    strcpy(link, "/proc/self/cwd");
  else
    snprintf(link, sizeof link, "/proc/self/fd/%d", base);
  ssize_t size = readlink(link, whole, PATH_MAX - 1);
  if (size < 0) return 0;
  snprintf(whole + size, PATH_MAX, "/%s", path);
  return is_under(whole);
}

static void die(void) {
  kill(getpid(), SIGKILL);
  pause();
}

/* True where the call must fail, with errno set. */
static int fails(int needs) {
  if (action == TORN) return 0;
  long number = atomic_fetch_add(&count, 1) + 1;
  if (action == NONE || number < at) return 0;
  if (action == FULL && needs & SPACE) {
    errno = ENOSPC;
    return 1;
  }
  if (action == READ_ONLY) {
    errno = EROFS;
    return 1;
  }
  if (action == NO_FILES && needs & DESCRIPTOR) {
    errno = EMFILE;
    return 1;
  }
  if (number > at) return 0;
  if (action == KILL) die();
  if (action == ERROR) {
    errno = EIO;
    return 1;
  }
  return 0;
}

/* True where a file cannot be opened for reading. */
static int fails_to_read(void) {
  if (action != NO_FILES || atomic_load(&count) < at) return 0;
  errno = EMFILE;
  return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define CHANGES (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)

#define OPEN(name, head, base, call)                                          \
  int name head {                                                             \
    mode_t mode = 0;                                                          \
    int needs = DESCRIPTOR | (flags & O_CREAT ? SPACE : 0);                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                      \
      va_list more;                                                           \
      va_start(more, flags);                                                  \
      mode = va_arg(more, mode_t);                                            \
      va_end(more);                                                           \
    }                                                                         \
    if (is_path_under(base, path) &&                                          \
        (flags & CHANGES ? fails(needs) : fails_to_read()))                   \
      return -1;                                                              \
    return NEXT(name) call;                                                   \
  }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(openat, (int base, const char *path, int flags, ...), base,
     (base, path, flags, mode))
OPEN(openat64, (int base, const char *path, int flags, ...), base,
     (base, path, flags, mode))

FILE *fopen(const char *path, const char *mode) {
  if (mode[0] != 'r' && is_path_under(AT_FDCWD, path) && fails(SPACE | DESCRIPTOR))
    return NULL;
  return NEXT(fopen)(path, mode);
}

FILE *fopen64(const char *path, const char *mode) {
  if (mode[0] != 'r' && is_path_under(AT_FDCWD, path) && fails(SPACE | DESCRIPTOR))
    return NULL;
  return NEXT(fopen64)(path, mode);
}

/* True for the write to tear, of which the caller writes half. */
static int is_torn(void) {
  return action == TORN && atomic_fetch_add(&count, 1) + 1 == at;
}

#define WRITE(name, head, half, call)  \
  ssize_t name head {                  \
    if (is_file_under(file)) {         \
      if (is_torn()) {                 \
        if (half < 0) return -1;       \
        die();                         \
      }                                \
      if (fails(SPACE)) return -1;     \
    }                                  \
    return NEXT(name) call;            \
  }

WRITE(write, (int file, const void *data, size_t size),
      NEXT(write)(file, data, size / 2), (file, data, size))
WRITE(pwrite, (int file, const void *data, size_t size, off_t offset),
      NEXT(pwrite)(file, data, size / 2, offset), (file, data, size, offset))
WRITE(pwrite64, (int file, const void *data, size_t size, off64_t offset),
      NEXT(pwrite64)(file, data, size / 2, offset), (file, data, size, offset))
WRITE(writev, (int file, const struct iovec *parts, int number),
      NEXT(write)(file, parts->iov_base, parts->iov_len / 2), (file, parts, number))

/* Calls of one path or one open file that change files. */
#define CALL(name, head, under, needs, call)      \
  int name head {                                 \
    if (under && fails(needs)) return -1;         \
    return NEXT(name) call;                       \
  }

#define HERE AT_FDCWD

CALL(rename, (const char *old, const char *new), is_path_under(HERE, new), 0, (old, new))
CALL(renameat, (int from, const char *old, int to, const char *new),
     is_path_under(to, new), 0, (from, old, to, new))
CALL(renameat2,
     (int from, const char *old, int to, const char *new, unsigned int flags),
     is_path_under(to, new), 0, (from, old, to, new, flags))
CALL(link, (const char *old, const char *new), is_path_under(HERE, new), SPACE, (old, new))
CALL(linkat, (int from, const char *old, int to, const char *new, int flags),
     is_path_under(to, new), SPACE, (from, old, to, new, flags))
CALL(symlink, (const char *old, const char *new), is_path_under(HERE, new), SPACE, (old, new))
CALL(mkdir, (const char *path, mode_t mode), is_path_under(HERE, path), SPACE, (path, mode))
CALL(mkdirat, (int base, const char *path, mode_t mode), is_path_under(base, path), SPACE,
     (base, path, mode))
CALL(unlink, (const char *path), is_path_under(HERE, path), 0, (path))
CALL(unlinkat, (int base, const char *path, int flags), is_path_under(base, path), 0,
     (base, path, flags))
CALL(rmdir, (const char *path), is_path_under(HERE, path), 0, (path))
CALL(truncate, (const char *path, off_t size), is_path_under(HERE, path), 0, (path, size))
CALL(ftruncate, (int file, off_t size), is_file_under(file), 0, (file, size))
CALL(ftruncate64, (int file, off64_t size), is_file_under(file), 0, (file, size))
CALL(fsync, (int file), is_file_under(file), 0, (file))
CALL(fdatasync, (int file), is_file_under(file), 0, (file))
