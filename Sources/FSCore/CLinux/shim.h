// Calls of Linux that glibc's headers hide behind _GNU_SOURCE, which Swift's Glibc module does
// not set, and headers that it leaves out.
#pragma once

#include <linux/stat.h>
#include <sys/xattr.h>

// O_DIRECT of open(2).
#if defined(__aarch64__)
static const int directAccessFlag = 0200000;
#else
static const int directAccessFlag = 040000;
#endif

int fallocate(int descriptor, int mode, long offset, long length);
int syncfs(int descriptor);
int renameat2(
    int fromDirectory, const char *from, int toDirectory, const char *to, unsigned int flags);
int memfd_create(const char *name, unsigned int flags);
int statx(int directory, const char *path, int flags, unsigned mask, struct statx *result);
// AT_STATX_DONT_SYNC: what the kernel knows, without asking a server.
static const int cachedStatusFlag = 0x4000;

// cachestat(2), since Linux 6.5: how many pages of a range the page cache has; -1 if that cannot be told.
long syscall(long number, ...);
static inline long cachedPages(int descriptor, unsigned long offset, unsigned long count) {
    unsigned long range[2] = {offset, count};
    unsigned long found[5];
    return syscall(451, descriptor, range, found, 0) == 0 ? (long)found[0] : -1;
}
