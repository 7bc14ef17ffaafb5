/* Faults for a process that loads this library first (LD_PRELOAD): a wall clock that is off, and slow fsync.
 * NORA_FAULTS names a file of two 64-bit integers, mapped and read on every call, so that a test changes them while
 * the process runs: the offset of the wall clock in milliseconds, and the delay of each fsync in microseconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *faults;

__attribute__((constructor)) static void open_faults(void) {
  const char *path = getenv("NORA_FAULTS");
  if (!path) return;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *mapped = mmap(0, 16, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped != MAP_FAILED) faults = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real ? real(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && faults && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t nanos = (int64_t)now->tv_nsec + (faults[0] % 1000) * 1000000;
    now->tv_sec += faults[0] / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
    now->tv_nsec = nanos < 0 ? nanos + 1000000000 : nanos % 1000000000;
  }
  return result;
}

static void slow(void) {
  if (!faults || faults[1] <= 0) return;
  struct timespec delay = {faults[1] / 1000000, (faults[1] % 1000000) * 1000};
  nanosleep(&delay, 0);
}

int fsync(int file) {
  slow();
  return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
  slow();
  return (int)syscall(SYS_fdatasync, file);
}
