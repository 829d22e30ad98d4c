// liburing 2.3 and later. It defines _GNU_SOURCE and _XOPEN_SOURCE; with a header of glibc's before it, that comes
// too late to give Swift another view of types than its Glibc module has.
#include <sys/types.h>
#include <liburing.h>

// What Swift's Glibc leaves out, because it sees the headers without _GNU_SOURCE.
extern int sched_setaffinity(int thread, __SIZE_TYPE__ size, const cpu_set_t *mask);
