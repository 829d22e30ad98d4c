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
