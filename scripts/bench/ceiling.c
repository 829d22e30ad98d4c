/*
 * ceiling: a trivial in-memory filesystem, the ceiling of what any FUSE filesystem can reach.
 *
 * It does for each request what the protocol demands and nothing else: no disk, no checksum, no
 * tree, no journal. Names lie in one hash table per directory, data in chunks of memory, every
 * inode has its own reader-writer lock, requests run on libfuse's threads. The mount options and
 * the capabilities it negotiates are those of AegisFS, so a ratio against it compares the
 * filesystems and not the settings: default_permissions, allow_other, timeouts of a day, negative
 * entries, readdirplus, parallel directory operations, requests of 1 MiB, ENOSYS for open,
 * opendir, flush and extended attributes, so that the kernel stops sending them.
 *
 * usage: ceiling [-f] [-d] [-o writeback] [-o max_threads=N] DIR
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include "ceiling_store.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define TIMEOUT_S 86400.0

static int use_writeback;

/* Describes an inode that the caller has not locked, and hands out one reference to the kernel. */
static void fill_entry(struct inode *i, struct fuse_entry_param *p)
{
    atomic_fetch_add(&i->references, 1);
    memset(p, 0, sizeof *p);
    p->ino = id_of(i);
    p->generation = 1;
    p->attr_timeout = p->entry_timeout = TIMEOUT_S;
    read_lock(i);
    fill_stat(i, &p->attr);
    unlock(i);
}

/* ---- requests on inodes -------------------------------------------------------------------- */

static void op_init(void *data, struct fuse_conn_info *conn)
{
    (void)data;
    conn->max_write = 1 << 20;
    conn->max_readahead = 1 << 20;
    conn->want |= conn->capable
        & (FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS
           | FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_NO_OPEN_SUPPORT
           | FUSE_CAP_NO_OPENDIR_SUPPORT | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_ASYNC_DIO);
    if (use_writeback) conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct inode *dir = inode_of(parent);
    struct fuse_entry_param p;
    if (strlen(name) > NAME_MAX) return (void)fuse_reply_err(req, ENAMETOOLONG);
    read_lock(dir);
    struct entry *e = find(dir, name);
    if (e) {
        fill_entry(e->inode, &p);
    } else { /* node id 0 with a timeout is a negative entry that the kernel keeps */
        memset(&p, 0, sizeof p);
        p.entry_timeout = TIMEOUT_S;
    }
    unlock(dir);
    fuse_reply_entry(req, &p);
}

static void op_forget(fuse_req_t req, fuse_ino_t id, uint64_t count)
{
    if (id != FUSE_ROOT_ID) drop_references(inode_of(id), count);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t f = 0; f < count; f++)
        if (forgets[f].ino != FUSE_ROOT_ID)
            drop_references(inode_of(forgets[f].ino), forgets[f].nlookup);
    fuse_reply_none(req);
}

static void reply_attr(fuse_req_t req, struct inode *i)
{
    struct stat st;
    fill_stat(i, &st);
    unlock(i);
    fuse_reply_attr(req, &st, TIMEOUT_S);
}

static void op_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    (void)fi;
    read_lock(inode_of(id));
    reply_attr(req, inode_of(id));
}

static void op_setattr(fuse_req_t req, fuse_ino_t id, struct stat *to, int set,
                       struct fuse_file_info *fi)
{
    (void)fi;
    struct inode *i = inode_of(id);
    write_lock(i);
    if (set & FUSE_SET_ATTR_MODE) i->mode = (i->mode & S_IFMT) | (to->st_mode & 07777);
    if (set & FUSE_SET_ATTR_UID) i->uid = to->st_uid;
    if (set & FUSE_SET_ATTR_GID) i->gid = to->st_gid;
    if (set & FUSE_SET_ATTR_SIZE) set_size(i, to->st_size);
    i->ctime = now();
    if (set & FUSE_SET_ATTR_ATIME) i->atime = to->st_atim;
    if (set & FUSE_SET_ATTR_ATIME_NOW) i->atime = i->ctime;
    if (set & FUSE_SET_ATTR_MTIME) i->mtime = to->st_mtim;
    if (set & FUSE_SET_ATTR_MTIME_NOW) i->mtime = i->ctime;
    if (set & FUSE_SET_ATTR_CTIME) i->ctime = to->st_ctim;
    reply_attr(req, i);
}

static void op_readlink(fuse_req_t req, fuse_ino_t id)
{
    fuse_reply_readlink(req, inode_of(id)->target);
}

static void op_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    static const char zeros[CHUNK];
    (void)fi;
    struct inode *i = inode_of(id);
    struct iovec parts[16];
    int count = 0;
    read_lock(i);
    if (offset >= i->size) size = 0;
    else if ((off_t)size > i->size - offset) size = i->size - offset;
    while (size > 0 && count < 16) {
        size_t piece = size;
        char *bytes = bytes_at(i, offset, &piece);
        parts[count].iov_base = bytes ? bytes : (char *)zeros;
        parts[count++].iov_len = piece;
        offset += piece;
        size -= piece;
    }
    fuse_reply_iov(req, parts, count);
    unlock(i);
}

static void op_write(fuse_req_t req, fuse_ino_t id, const char *source, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    (void)fi;
    struct inode *i = inode_of(id);
    write_lock(i);
    for (size_t done = 0, piece; done < size; done += piece) {
        piece = size - done;
        memcpy(writable_bytes_at(i, offset + done, &piece), source + done, piece);
    }
    if (offset + (off_t)size > i->size) i->size = offset + size;
    i->mtime = i->ctime = now();
    unlock(i);
    fuse_reply_write(req, size);
}

static void op_fsync(fuse_req_t req, fuse_ino_t id, int datasync, struct fuse_file_info *fi)
{
    (void)id, (void)datasync, (void)fi;
    fuse_reply_err(req, 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t id)
{
    (void)id;
    struct statvfs st = {
        .f_bsize = 4096, .f_frsize = 4096, .f_blocks = 1 << 24, .f_bfree = 1 << 23,
        .f_bavail = 1 << 23, .f_files = 1 << 24, .f_ffree = 1 << 23, .f_namemax = NAME_MAX,
    };
    fuse_reply_statfs(req, &st);
}

/* ---- requests on directories --------------------------------------------------------------- */

/* Links a new inode into its directory; 0 or an errno, and then the inode is freed. */
static int add(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device,
               const char *target, struct fuse_entry_param *p)
{
    struct inode *dir = inode_of(parent);
    const struct fuse_ctx *caller = fuse_req_ctx(req);
    if (strlen(name) > NAME_MAX) return ENAMETOOLONG;
    struct inode *i = new_inode(mode, caller->uid, caller->gid, device);
    if (target) {
        i->target = strdup(target);
        i->size = strlen(target);
    }
    write_lock(dir);
    int taken = find(dir, name) != NULL;
    if (!taken) {
        if (dir->mode & S_ISGID) {
            i->gid = dir->gid;
            if (S_ISDIR(mode)) i->mode |= S_ISGID;
        }
        insert(dir, name, i);
        fill_entry(i, p);
    }
    unlock(dir);
    if (taken) drop_references(i, 1);
    return taken ? EEXIST : 0;
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    struct fuse_entry_param p;
    int error = add(req, parent, name, mode, device, NULL, &p);
    error ? fuse_reply_err(req, error) : fuse_reply_entry(req, &p);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    op_mknod(req, parent, name, S_IFDIR | (mode & 07777), 0);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param p;
    int error = add(req, parent, name, S_IFLNK | 0777, 0, target, &p);
    error ? fuse_reply_err(req, error) : fuse_reply_entry(req, &p);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi)
{
    struct fuse_entry_param p;
    int error = add(req, parent, name, S_IFREG | (mode & 07777), 0, NULL, &p);
    fi->keep_cache = 1;
    error ? fuse_reply_err(req, error) : fuse_reply_create(req, &p, fi);
}

static void op_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t parent, const char *name)
{
    struct inode *dir = inode_of(parent), *i = inode_of(id);
    struct fuse_entry_param p;
    if (strlen(name) > NAME_MAX) return (void)fuse_reply_err(req, ENAMETOOLONG);
    write_lock(dir);
    int taken = find(dir, name) != NULL;
    if (!taken) {
        i->links++;
        atomic_fetch_add(&i->references, 1);
        insert(dir, name, i);
        fill_entry(i, &p);
    }
    unlock(dir);
    taken ? fuse_reply_err(req, EEXIST) : fuse_reply_entry(req, &p);
}

/* Takes an entry's link off its inode; the directory is locked, the entry is gone afterwards. */
static struct inode *take_out(struct inode *dir, struct entry *e)
{
    struct inode *i = e->inode;
    erase(dir, e);
    i->links -= S_ISDIR(i->mode) ? 2 : 1;
    return i;
}

static void remove_entry(fuse_req_t req, fuse_ino_t parent, const char *name, int want_directory)
{
    struct inode *dir = inode_of(parent), *gone = NULL;
    int error = 0;
    write_lock(dir);
    struct entry *e = find(dir, name);
    if (!e) error = ENOENT;
    else if (want_directory && !S_ISDIR(e->inode->mode)) error = ENOTDIR;
    else if (!want_directory && S_ISDIR(e->inode->mode)) error = EISDIR;
    else if (want_directory && e->inode->count > 0) error = ENOTEMPTY;
    else gone = take_out(dir, e);
    unlock(dir);
    if (gone) drop_references(gone, 1);
    fuse_reply_err(req, error);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_entry(req, parent, name, 0);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_entry(req, parent, name, 1);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                      const char *new_name, unsigned flags)
{
    struct inode *from = inode_of(parent), *to = inode_of(new_parent), *gone = NULL;
    if (strlen(new_name) > NAME_MAX) return (void)fuse_reply_err(req, ENAMETOOLONG);
    write_lock(from < to ? from : to); /* in one order, so that two renames cannot deadlock */
    if (from != to) write_lock(from < to ? to : from);
    struct entry *source = find(from, name), *target = find(to, new_name);
    int error = 0;
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) error = EINVAL;
    else if (!source || ((flags & RENAME_EXCHANGE) && !target)) error = ENOENT;
    else if (target && (flags & RENAME_NOREPLACE)) error = EEXIST;
    else if (target && !(flags & RENAME_EXCHANGE) && S_ISDIR(target->inode->mode)
             && target->inode->count > 0) error = ENOTEMPTY;
    if (!error && !(target && target->inode == source->inode)) {
        struct inode *moved = source->inode, *other = target ? target->inode : NULL;
        erase(from, source);
        if (other && (flags & RENAME_EXCHANGE)) {
            erase(to, target);
            insert(from, name, other);
        } else if (other) {
            gone = take_out(to, target);
        }
        insert(to, new_name, moved);
    }
    unlock(from);
    if (from != to) unlock(to);
    if (gone) drop_references(gone, 1);
    fuse_reply_err(req, error);
}

static void list(fuse_req_t req, fuse_ino_t id, size_t size, off_t cookie, int plus)
{
    struct inode *dir = inode_of(id);
    char *buffer = malloc(size);
    size_t used = 0;
    read_lock(dir);
    for (off_t at = cookie < 0 ? 0 : cookie; at < (off_t)dir->slot_count + 2; at++) {
        struct entry *e = at < 2 ? NULL : dir->slots[at - 2];
        if (at >= 2 && !e) continue;
        const char *name = e ? e->name : at == 0 ? "." : "..";
        struct fuse_entry_param p;
        memset(&p, 0, sizeof p);
        struct inode *i = e ? e->inode : at == 0 || !dir->parent ? dir : dir->parent;
        if (plus && e) fill_entry(i, &p);
        p.attr.st_ino = i->number;
        p.attr.st_mode = i->mode;
        size_t need = plus
            ? fuse_add_direntry_plus(req, buffer + used, size - used, name, &p, at + 1)
            : fuse_add_direntry(req, buffer + used, size - used, name, &p.attr, at + 1);
        if (need > size - used) {
            if (plus && e) drop_references(i, 1);
            break;
        }
        used += need;
    }
    unlock(dir);
    fuse_reply_buf(req, buffer, used);
    free(buffer);
}

static void op_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t cookie,
                       struct fuse_file_info *fi)
{
    (void)fi;
    list(req, id, size, cookie, 0);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t id, size_t size, off_t cookie,
                           struct fuse_file_info *fi)
{
    (void)fi;
    list(req, id, size, cookie, 1);
}

/* ENOSYS ends these requests; libfuse's own answer would be that it was opened. */
static void op_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    (void)id;
    (void)fi;
    fuse_reply_err(req, ENOSYS);
}

/* Operations without an entry, flush and all of xattr, are ENOSYS in libfuse. */
static const struct fuse_lowlevel_ops operations = {
    .init = op_init, .lookup = op_lookup, .forget = op_forget, .forget_multi = op_forget_multi,
    .getattr = op_getattr, .setattr = op_setattr, .readlink = op_readlink, .mknod = op_mknod,
    .mkdir = op_mkdir, .unlink = op_unlink, .rmdir = op_rmdir, .symlink = op_symlink,
    .rename = op_rename, .link = op_link, .read = op_read, .write = op_write, .fsync = op_fsync,
    .statfs = op_statfs, .create = op_create, .readdir = op_readdir,
    .readdirplus = op_readdirplus, .fsyncdir = op_fsync, .open = op_open, .opendir = op_open,
};

/* ---- start --------------------------------------------------------------------------------- */

/* A FUSE mount begins with 128 KiB of readahead and strict writeback limits; root may raise it. */
static void raise_limits(const char *directory)
{
    char line[8192], point[PATH_MAX], path[96];
    unsigned major_number, minor_number;
    FILE *mounts = fopen("/proc/self/mountinfo", "r");
    while (mounts && fgets(line, sizeof line, mounts)) {
        if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &major_number, &minor_number, point) != 3
            || strcmp(point, directory)) continue;
        static const char *const settings[][2] = {
            {"read_ahead_kb", "1024"}, {"strict_limit", "0"}, {"max_ratio", "100"}};
        for (size_t s = 0; s < 3; s++) {
            snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/%s", major_number, minor_number,
                     settings[s][0]);
            FILE *file = fopen(path, "w");
            if (!file) continue;
            fputs(settings[s][1], file);
            fclose(file);
        }
    }
    if (mounts) fclose(mounts);
}

int main(int argc, char **argv)
{
    struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
    static const struct fuse_opt options[] = {{"writeback", 0, 1}, FUSE_OPT_END};
    struct fuse_cmdline_opts command;
    char *directory;
    if (fuse_opt_parse(&args, &use_writeback, options, NULL)
        || fuse_parse_cmdline(&args, &command) || !command.mountpoint
        || !(directory = realpath(command.mountpoint, NULL))) {
        fprintf(stderr, "usage: ceiling [-f] [-d] [-o OPTIONS] DIR\n");
        return 2;
    }
    fuse_opt_add_arg(&args, "-odefault_permissions,allow_other,fsname=ceiling,subtype=ceiling");
    root = new_inode(S_IFDIR | 0755, geteuid(), getegid(), 0);
    struct fuse_session *session =
        fuse_session_new(&args, &operations, sizeof operations, NULL);
    if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, directory))
        return 1;
    raise_limits(directory);
    fuse_daemonize(command.foreground);
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(loop, command.clone_fd);
    fuse_loop_cfg_set_max_threads(loop, command.max_threads);
    int result = fuse_session_loop_mt(session, loop);
    fuse_loop_cfg_destroy(loop);
    fuse_session_unmount(session);
    fuse_session_destroy(session);
    return result != 0;
}
