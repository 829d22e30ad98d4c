// System calls as the kernel has them: a result, or the error number negated. Without glibc's
// wrappers in between, because some of those answer for the kernel (faccessat, fchmodat) or act on
// all threads (setresuid).
#pragma once

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>

extern long syscall(long number, ...);

#define CALL(...)                        \
    {                                    \
        long outcome = syscall(__VA_ARGS__); \
        return outcome < 0 ? -(long)errno : outcome; \
    }

#define HERE (-100)

/// The head of `struct statx`; the kernel fills 256 bytes.
struct cc_time {
    int64_t seconds;
    uint32_t nanoseconds;
    int32_t reserved;
};
struct cc_stat {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, pad;
    uint64_t ino, size, blocks, attributes_mask;
    struct cc_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t rest[14];
};
struct cc_timespec {
    int64_t seconds, nanoseconds;
};
struct cc_lock {
    int16_t type, whence;
    int64_t start, length;
    int32_t pid;
};
struct cc_handle {
    uint32_t bytes;
    int32_t type;
    uint8_t data[128];
};
struct cc_statfs {
    long type, bsize;
    uint64_t blocks, bfree, bavail, files, ffree;
    int fsid[2];
    long namelen, frsize, flags, spare[4];
};

static inline long cc_open(int at, const char *path, int flags, unsigned mode) CALL(SYS_openat, at, path, flags, mode)
static inline long cc_close(int fd) CALL(SYS_close, fd)
static inline long cc_close_from(unsigned fd) CALL(SYS_close_range, fd, ~0u, 0)
static inline long cc_mkdir(int at, const char *path, unsigned mode) CALL(SYS_mkdirat, at, path, mode)
static inline long cc_mknod(int at, const char *path, unsigned mode, unsigned device) CALL(SYS_mknodat, at, path, mode, device)
static inline long cc_link(int from, const char *path, int to, const char *name, int flags) CALL(SYS_linkat, from, path, to, name, flags)
static inline long cc_symlink(const char *target, int at, const char *path) CALL(SYS_symlinkat, target, at, path)
static inline long cc_rename(int from, const char *path, int to, const char *name, unsigned flags) CALL(SYS_renameat2, from, path, to, name, flags)
static inline long cc_unlink(int at, const char *path, int flags) CALL(SYS_unlinkat, at, path, flags)
static inline long cc_truncate(const char *path, long size) CALL(SYS_truncate, path, size)
static inline long cc_ftruncate(int fd, long size) CALL(SYS_ftruncate, fd, size)
static inline long cc_chmod(int at, const char *path, unsigned mode) CALL(SYS_fchmodat, at, path, mode)
static inline long cc_chmod_link(int at, const char *path, unsigned mode, int flags) CALL(452, at, path, mode, flags)
static inline long cc_fchmod(int fd, unsigned mode) CALL(SYS_fchmod, fd, mode)
static inline long cc_chown(int at, const char *path, unsigned user, unsigned group, int flags) CALL(SYS_fchownat, at, path, user, group, flags)
static inline long cc_fchown(int fd, unsigned user, unsigned group) CALL(SYS_fchown, fd, user, group)
static inline long cc_utimens(int at, const char *path, const struct cc_timespec *times, int flags) CALL(SYS_utimensat, at, path, times, flags)
static inline long cc_statx(int at, const char *path, int flags, struct cc_stat *result) CALL(SYS_statx, at, path, flags, 0xFFF, result)
static inline long cc_readlink(int at, const char *path, char *target, long size) CALL(SYS_readlinkat, at, path, target, size)
static inline long cc_access(int at, const char *path, int mode, int flags) CALL(SYS_faccessat2, at, path, mode, flags)
static inline long cc_statfs(const char *path, struct cc_statfs *result) CALL(SYS_statfs, path, result)
static inline long cc_chdir(const char *path) CALL(SYS_chdir, path)
static inline long cc_fchdir(int fd) CALL(SYS_fchdir, fd)
static inline long cc_getcwd(char *path, long size) CALL(SYS_getcwd, path, size)
static inline long cc_umask(unsigned mask) CALL(SYS_umask, mask)

static inline long cc_read(int fd, void *bytes, long size) CALL(SYS_read, fd, bytes, size)
static inline long cc_write(int fd, const void *bytes, long size) CALL(SYS_write, fd, bytes, size)
static inline long cc_pread(int fd, void *bytes, long size, long offset) CALL(SYS_pread64, fd, bytes, size, offset)
static inline long cc_pwrite(int fd, const void *bytes, long size, long offset) CALL(SYS_pwrite64, fd, bytes, size, offset)
static inline long cc_lseek(int fd, long offset, int whence) CALL(SYS_lseek, fd, offset, whence)
static inline long cc_fsync(int fd) CALL(SYS_fsync, fd)
static inline long cc_fdatasync(int fd) CALL(SYS_fdatasync, fd)
static inline long cc_syncfs(int fd) CALL(SYS_syncfs, fd)
static inline long cc_fallocate(int fd, int mode, long offset, long count) CALL(SYS_fallocate, fd, mode, offset, count)
static inline long cc_copy(int from, long *at, int to, long *where, long count) CALL(SYS_copy_file_range, from, at, to, where, count, 0)
static inline long cc_sendfile(int to, int from, long *at, long count) CALL(SYS_sendfile, to, from, at, count)
static inline long cc_splice(int from, long *at, int to, long *where, long count) CALL(SYS_splice, from, at, to, where, count, 0)
static inline long cc_pipe(int *ends) CALL(SYS_pipe2, ends, 0)
static inline long cc_map(long size, int access, int flags, int fd, long offset) CALL(SYS_mmap, 0, size, access, flags, fd, offset)
static inline long cc_unmap(long address, long size) CALL(SYS_munmap, address, size)
static inline long cc_msync(long address, long size, int flags) CALL(SYS_msync, address, size, flags)
static inline long cc_getdents(int fd, void *bytes, long size) CALL(SYS_getdents64, fd, bytes, size)
static inline long cc_advise(int fd, long offset, long size, int advice) CALL(SYS_fadvise64, fd, offset, size, advice)

static inline long cc_setxattr(const char *path, const char *name, const void *value, long size, int flags) CALL(SYS_setxattr, path, name, value, size, flags)
static inline long cc_lsetxattr(const char *path, const char *name, const void *value, long size, int flags) CALL(SYS_lsetxattr, path, name, value, size, flags)
static inline long cc_fsetxattr(int fd, const char *name, const void *value, long size, int flags) CALL(SYS_fsetxattr, fd, name, value, size, flags)
static inline long cc_getxattr(const char *path, const char *name, void *value, long size) CALL(SYS_getxattr, path, name, value, size)
static inline long cc_lgetxattr(const char *path, const char *name, void *value, long size) CALL(SYS_lgetxattr, path, name, value, size)
static inline long cc_fgetxattr(int fd, const char *name, void *value, long size) CALL(SYS_fgetxattr, fd, name, value, size)
static inline long cc_listxattr(const char *path, void *names, long size) CALL(SYS_listxattr, path, names, size)
static inline long cc_removexattr(const char *path, const char *name) CALL(SYS_removexattr, path, name)

static inline long cc_flock(int fd, int operation) CALL(SYS_flock, fd, operation)
static inline long cc_fcntl(int fd, int command, long argument) CALL(SYS_fcntl, fd, command, argument)
static inline long cc_lock(int fd, int command, struct cc_lock *lock) CALL(SYS_fcntl, fd, command, lock)
static inline long cc_ioctl(int fd, unsigned long command, void *argument) CALL(SYS_ioctl, fd, command, argument)
static inline long cc_inotify(void) CALL(SYS_inotify_init1, 04000)
static inline long cc_watch(int fd, const char *path, unsigned events) CALL(SYS_inotify_add_watch, fd, path, events)
static inline long cc_handle_of(int at, const char *path, struct cc_handle *handle, int *mount, int flags) CALL(SYS_name_to_handle_at, at, path, handle, mount, flags)
static inline long cc_open_handle(int mount, struct cc_handle *handle, int flags) CALL(SYS_open_by_handle_at, mount, handle, flags)
static inline long cc_socket(void) CALL(SYS_socket, 1, 1, 0)
static inline long cc_bind(int fd, const void *address, int size) CALL(SYS_bind, fd, address, size)
static inline long cc_listen(int fd) CALL(SYS_listen, fd, 1)
static inline long cc_connect(int fd, const void *address, int size) CALL(SYS_connect, fd, address, size)
static inline long cc_execve(const char *path, char *const *arguments, char *const *environment) CALL(SYS_execve, path, arguments, environment)
static inline long cc_fork(void) CALL(SYS_fork)
static inline long cc_wait(int pid, int *status) CALL(SYS_wait4, pid, status, 0, 0)
static inline long cc_set_user(unsigned real, unsigned effective, unsigned saved) CALL(SYS_setresuid, real, effective, saved)
static inline long cc_set_group(unsigned real, unsigned effective, unsigned saved) CALL(SYS_setresgid, real, effective, saved)
static inline long cc_set_groups(int count, const unsigned *groups) CALL(SYS_setgroups, count, groups)
static inline long cc_limit(int resource, const uint64_t *limit) CALL(SYS_prlimit64, 0, resource, limit, 0)

#undef CALL
