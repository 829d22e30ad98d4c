// Calls of Linux that glibc's headers hide behind _GNU_SOURCE, which Swift's Glibc module does
// not set, and headers that it leaves out.
#pragma once

#include <sys/xattr.h>

int fallocate(int descriptor, int mode, long offset, long length);
int syncfs(int descriptor);
int memfd_create(const char *name, unsigned int flags);
