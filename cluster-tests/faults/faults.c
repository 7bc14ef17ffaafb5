/* Faults for a process that loads this library first (LD_PRELOAD).
 *
 * NORA_FAULTS names a file of three 64-bit integers, mapped and read on every call, so that a test changes them while the
 * process runs: the offset of the wall clock in milliseconds, the delay of each fsync in microseconds, and whether the disk
 * is full (writes to files fail, except to the standard streams).
 *
 * NORA_SYNCED names a file to which each fsync appends two 64-bit integers: the file's inode and its length then. What a
 * file has beyond that a power cut may take. A file that is made or emptied is noted with length 0, as inodes are used
 * again. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CLOCK_OFFSET, SYNC_DELAY, DISK_FULL, FAULTS };

static volatile int64_t *faults;
static int synced = -1;

__attribute__((constructor)) static void open_faults(void) {
  const char *path = getenv("NORA_FAULTS");
  if (path) {
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file >= 0) {
      void *mapped = mmap(0, FAULTS * sizeof *faults, PROT_READ, MAP_SHARED, file, 0);
      close(file);
      if (mapped != MAP_FAILED) faults = mapped;
    }
  }
  path = getenv("NORA_SYNCED");
  if (path) synced = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real ? real(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && faults && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t offset = faults[CLOCK_OFFSET];
    int64_t nanos = (int64_t)now->tv_nsec + (offset % 1000) * 1000000;
    now->tv_sec += offset / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
    now->tv_nsec = nanos < 0 ? nanos + 1000000000 : nanos % 1000000000;
  }
  return result;
}

static void note_length(int file, int only_empty) {
  int error = errno;
  struct stat found;
  if (synced >= 0 && fstat(file, &found) == 0 && S_ISREG(found.st_mode) && !(only_empty && found.st_size > 0)) {
    uint64_t record[2] = {found.st_ino, (uint64_t)found.st_size};
    syscall(SYS_write, synced, record, sizeof record);
  }
  errno = error;
}

static void slow(void) {
  if (!faults || faults[SYNC_DELAY] <= 0) return;
  struct timespec delay = {faults[SYNC_DELAY] / 1000000, (faults[SYNC_DELAY] % 1000000) * 1000};
  nanosleep(&delay, 0);
}

/* The length is taken before: what is written meanwhile need not be on the disk. */
static int sync_by(long call, int file) {
  struct stat before;
  int known = synced >= 0 && fstat(file, &before) == 0 && S_ISREG(before.st_mode);
  slow();
  int result = (int)syscall(call, file);
  if (result == 0 && known) {
    uint64_t record[2] = {before.st_ino, (uint64_t)before.st_size};
    syscall(SYS_write, synced, record, sizeof record);
  }
  return result;
}

int fsync(int file) { return sync_by(SYS_fsync, file); }
int fdatasync(int file) { return sync_by(SYS_fdatasync, file); }

static int open_by(int folder, const char *path, int flags, mode_t mode) {
  int file = (int)syscall(SYS_openat, folder, path, flags, mode);
  if (file >= 0 && (flags & (O_CREAT | O_TRUNC))) note_length(file, 1);
  return file;
}

#define MODE(after, mode)                                                                                              \
  mode_t mode = 0;                                                                                                     \
  if (flags & (O_CREAT | __O_TMPFILE)) {                                                                               \
    va_list more;                                                                                                      \
    va_start(more, after);                                                                                             \
    mode = va_arg(more, mode_t);                                                                                       \
    va_end(more);                                                                                                      \
  }

int open(const char *path, int flags, ...) {
  MODE(flags, mode)
  return open_by(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE(flags, mode)
  return open_by(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
  MODE(flags, mode)
  return open_by(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
  MODE(flags, mode)
  return open_by(folder, path, flags, mode);
}

static int is_full(int file) {
  struct stat found;
  if (!faults || !faults[DISK_FULL] || file <= 2 || fstat(file, &found) != 0 || !S_ISREG(found.st_mode)) return 0;
  errno = ENOSPC;
  return 1;
}

ssize_t write(int file, const void *bytes, size_t length) {
  return is_full(file) ? -1 : syscall(SYS_write, file, bytes, length);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
  return is_full(file) ? -1 : syscall(SYS_pwrite64, file, bytes, length, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off_t at) {
  return is_full(file) ? -1 : syscall(SYS_pwrite64, file, bytes, length, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  return is_full(file) ? -1 : syscall(SYS_writev, file, parts, count);
}

int fallocate(int file, int mode, off_t at, off_t length) {
  return is_full(file) ? -1 : (int)syscall(SYS_fallocate, file, mode, at, length);
}

int fallocate64(int file, int mode, off_t at, off_t length) {
  return is_full(file) ? -1 : (int)syscall(SYS_fallocate, file, mode, at, length);
}
