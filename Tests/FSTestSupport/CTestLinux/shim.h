// What the tests use of Linux and Swift's Glibc module does not show: calls and constants behind
// _GNU_SOURCE, extended attributes, device numbers.
#pragma once

#include <errno.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/xattr.h>

extern long syscall(long number, ...);
int pipe2(int descriptors[2], int flags);
int fallocate(int descriptor, int mode, long offset, long length);
int renameat2(int from, const char *name, int to, const char *new_name, unsigned int flags);
long copy_file_range(int from, long *from_offset, int to, long *to_offset, unsigned long count,
                     unsigned int flags);
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int from);
int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *actions, const char *path);

/// Mounts `source` at `target` with the ids of a user namespace, which a descriptor names; 0, or the
/// error number (mount_setattr(2), Linux 5.12).
static inline int aegis_mount_mapped(const char *source, const char *target, int names) {
    struct {
        unsigned long long set, clear, propagation, names;
    } change = {0x100000, 0, 0, (unsigned long long)names};
    const int here = -100, clone = 1, empty_path = 0x1000, from_descriptor = 4;
    long tree = syscall(SYS_open_tree, here, source, clone);
    if (tree < 0) return errno;
    int failure = 0;
    if (syscall(SYS_mount_setattr, tree, "", empty_path, &change, sizeof change) < 0 ||
        syscall(SYS_move_mount, tree, "", here, target, from_descriptor) < 0)
        failure = errno;
    syscall(SYS_close, tree);
    return failure;
}

static const short aegis_spawn_setsid = 0x80;
static const int aegis_seek_data = 3;
static const int aegis_seek_hole = 4;
static const long aegis_utime_omit = (1l << 30) - 2l;
static const int aegis_o_tmpfile = 020000000;
