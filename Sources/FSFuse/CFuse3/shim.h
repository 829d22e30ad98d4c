// libfuse's low-level API, version 3.12 and later. _FILE_OFFSET_BITS is left alone: off_t has 64
// bits on every supported platform, and the macro would clash with Swift's own view of Glibc.
#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

// What Swift's Glibc leaves out, because it sees the headers without _GNU_SOURCE.
#include <linux/stat.h>
#include <sys/xattr.h>
extern int statx(int directory, const char *path, int flags, unsigned mask, struct statx *result);
extern int syncfs(int descriptor);
enum { AEGIS_SEEK_DATA = 3, AEGIS_SEEK_HOLE = 4, AEGIS_AT_STATX_DONT_SYNC = 0x4000, AEGIS_O_NOATIME = 01000000 };
