// What the tests use of Linux and Swift's Glibc module does not show: calls and constants behind
// _GNU_SOURCE, extended attributes, device numbers.
#pragma once

#include <spawn.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/xattr.h>

int pipe2(int descriptors[2], int flags);
int fallocate(int descriptor, int mode, long offset, long length);
int renameat2(int from, const char *name, int to, const char *new_name, unsigned int flags);
long copy_file_range(int from, long *from_offset, int to, long *to_offset, unsigned long count,
                     unsigned int flags);
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int from);
int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *actions, const char *path);

static const short aegis_spawn_setsid = 0x80;
static const int aegis_seek_data = 3;
static const int aegis_seek_hole = 4;
static const long aegis_utime_omit = (1l << 30) - 2l;
static const int aegis_o_tmpfile = 020000000;
