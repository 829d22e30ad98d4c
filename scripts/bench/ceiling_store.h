/*
 * ceiling_store: what the ceiling keeps in memory: inodes, directories as hash tables, and data.
 *
 * Every inode has a reader-writer lock; a function that takes an inode expects the caller to hold
 * it. Locks are taken from a directory to its children; where a rename must lock two directories
 * by address, the kernel keeps every other request on names out of both. A failed allocation is
 * not handled: a benchmark without memory has no result.
 */
#ifndef CEILING_STORE_H
#define CEILING_STORE_H

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define CHUNK ((size_t)1 << 20)
#define MIN_CHUNK ((size_t)4096)

struct inode;

struct entry {
    struct entry *next; /* in the hash bucket */
    struct inode *inode;
    size_t slot; /* its place in `slots`, which makes the readdir cookie */
    uint32_t hash;
    uint8_t length;
    char name[];
};

struct inode {
    pthread_rwlock_t lock; /* guards everything below but the counters */
    /* Links plus references of the kernel; who takes it to zero frees the inode. */
    atomic_ulong references;
    atomic_uint links; /* written under the lock of a directory, read without */
    uint64_t number;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    dev_t device;
    off_t size;
    struct timespec atime, mtime, ctime;
    union {
        struct { /* a directory */
            struct inode *parent;
            struct entry **buckets, **slots;
            size_t bucket_count, slot_count, slot_limit, free_slot_count, *free_slots, count;
        };
        struct { /* a file: the first chunk grows by doubling, the others are whole */
            char **chunks;
            size_t chunk_count, first_size;
        };
        char *target; /* a symbolic link */
    };
};

static struct inode *root;
static atomic_ulong next_number = 1;

static struct inode *inode_of(fuse_ino_t id)
{
    return id == FUSE_ROOT_ID ? root : (struct inode *)(uintptr_t)id;
}

static fuse_ino_t id_of(struct inode *i)
{
    return i == root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)i;
}

static void read_lock(struct inode *i) { pthread_rwlock_rdlock(&i->lock); }
static void write_lock(struct inode *i) { pthread_rwlock_wrlock(&i->lock); }
static void unlock(struct inode *i) { pthread_rwlock_unlock(&i->lock); }

static struct timespec now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t;
}

/* ---- directories: called with the directory locked ------------------------------------------ */

static uint32_t hash_name(const char *name, size_t length)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < length; i++) h = (h ^ (uint8_t)name[i]) * 16777619u;
    return h;
}

static struct entry *find(struct inode *dir, const char *name)
{
    size_t length = strlen(name);
    if (dir->bucket_count == 0) return NULL;
    uint32_t hash = hash_name(name, length);
    struct entry *e = dir->buckets[hash & (dir->bucket_count - 1)];
    while (e && (e->hash != hash || e->length != length || memcmp(e->name, name, length)))
        e = e->next;
    return e;
}

static void grow_buckets(struct inode *dir)
{
    size_t count = dir->bucket_count ? dir->bucket_count * 2 : 8;
    struct entry **buckets = calloc(count, sizeof *buckets);
    for (size_t b = 0; b < dir->bucket_count; b++) {
        for (struct entry *e = dir->buckets[b], *next; e; e = next) {
            next = e->next;
            e->next = buckets[e->hash & (count - 1)];
            buckets[e->hash & (count - 1)] = e;
        }
    }
    free(dir->buckets);
    dir->buckets = buckets;
    dir->bucket_count = count;
}

static void insert(struct inode *dir, const char *name, struct inode *target)
{
    if (dir->count >= dir->bucket_count) grow_buckets(dir);
    size_t length = strlen(name);
    struct entry *e = malloc(sizeof *e + length + 1);
    e->inode = target;
    e->hash = hash_name(name, length);
    e->length = (uint8_t)length;
    memcpy(e->name, name, length + 1);
    if (dir->free_slot_count > 0) {
        e->slot = dir->free_slots[--dir->free_slot_count];
    } else {
        if (dir->slot_count == dir->slot_limit) {
            dir->slot_limit = dir->slot_limit ? dir->slot_limit * 2 : 8;
            dir->slots = realloc(dir->slots, dir->slot_limit * sizeof *dir->slots);
            dir->free_slots = realloc(dir->free_slots, dir->slot_limit * sizeof(size_t));
        }
        e->slot = dir->slot_count++;
    }
    dir->slots[e->slot] = e;
    struct entry **bucket = &dir->buckets[e->hash & (dir->bucket_count - 1)];
    e->next = *bucket;
    *bucket = e;
    dir->count++;
    if (S_ISDIR(target->mode)) {
        dir->links++;
        target->parent = dir;
    }
    dir->mtime = dir->ctime = now();
}

static void erase(struct inode *dir, struct entry *e)
{
    struct entry **p = &dir->buckets[e->hash & (dir->bucket_count - 1)];
    while (*p != e) p = &(*p)->next;
    *p = e->next;
    dir->slots[e->slot] = NULL;
    dir->free_slots[dir->free_slot_count++] = e->slot;
    dir->count--;
    if (S_ISDIR(e->inode->mode)) dir->links--;
    dir->mtime = dir->ctime = now();
    free(e);
}

/* ---- inodes ---------------------------------------------------------------------------------- */

static void drop_references(struct inode *i, unsigned long count)
{
    if (atomic_fetch_sub(&i->references, count) != count) return;
    if (S_ISREG(i->mode)) {
        for (size_t c = 0; c < i->chunk_count; c++) free(i->chunks[c]);
        free(i->chunks);
    } else if (S_ISDIR(i->mode)) {
        free(i->buckets);
        free(i->slots);
        free(i->free_slots);
    } else if (S_ISLNK(i->mode)) {
        free(i->target);
    }
    pthread_rwlock_destroy(&i->lock);
    free(i);
}

static struct inode *new_inode(mode_t mode, uid_t uid, gid_t gid, dev_t device)
{
    struct inode *i = calloc(1, sizeof *i);
    pthread_rwlock_init(&i->lock, NULL);
    i->references = 1;
    i->links = S_ISDIR(mode) ? 2 : 1;
    i->number = next_number++;
    i->mode = mode;
    i->uid = uid;
    i->gid = gid;
    i->device = device;
    i->atime = i->mtime = i->ctime = now();
    return i;
}

static void fill_stat(struct inode *i, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_ino = i->number;
    st->st_mode = i->mode;
    st->st_nlink = i->links;
    st->st_uid = i->uid;
    st->st_gid = i->gid;
    st->st_rdev = i->device;
    st->st_size = S_ISDIR(i->mode) ? (off_t)i->count : i->size;
    st->st_blksize = 4096;
    st->st_blocks = (i->size + 511) / 512;
    st->st_atim = i->atime;
    st->st_mtim = i->mtime;
    st->st_ctim = i->ctime;
}

/* The memory behind `offset` and how much of it lies in one piece; NULL for a hole. */
static char *bytes_at(struct inode *i, off_t offset, size_t *count)
{
    size_t index = offset / CHUNK, inside = offset % CHUNK;
    if (*count > CHUNK - inside) *count = CHUNK - inside;
    if (index >= i->chunk_count || !i->chunks[index]) return NULL;
    if (index == 0 && inside + *count > i->first_size) {
        if (inside >= i->first_size) return NULL;
        *count = i->first_size - inside;
    }
    return i->chunks[index] + inside;
}

static char *writable_bytes_at(struct inode *i, off_t offset, size_t *count)
{
    size_t index = offset / CHUNK, inside = offset % CHUNK;
    if (*count > CHUNK - inside) *count = CHUNK - inside;
    if (index >= i->chunk_count) {
        size_t limit = i->chunk_count ? i->chunk_count : 1;
        while (limit <= index) limit *= 2;
        i->chunks = realloc(i->chunks, limit * sizeof(char *));
        memset(i->chunks + i->chunk_count, 0, (limit - i->chunk_count) * sizeof(char *));
        i->chunk_count = limit;
    }
    if (index > 0) {
        if (!i->chunks[index]) i->chunks[index] = calloc(1, CHUNK);
    } else if (inside + *count > i->first_size) {
        size_t size = i->first_size ? i->first_size : MIN_CHUNK;
        while (size < inside + *count) size *= 2;
        i->chunks[0] = realloc(i->chunks[0], size);
        memset(i->chunks[0] + i->first_size, 0, size - i->first_size);
        i->first_size = size;
    }
    return i->chunks[index] + inside;
}

static void set_size(struct inode *i, off_t size)
{
    for (off_t at = size; at < i->size;) { /* what lies beyond the end always reads as zero */
        size_t count = i->size - at > (off_t)CHUNK ? CHUNK : (size_t)(i->size - at);
        size_t whole = count;
        char *bytes = bytes_at(i, at, &count);
        if (!bytes) {
            at += whole < CHUNK - at % CHUNK ? whole : CHUNK - at % CHUNK;
            continue;
        }
        if (at % CHUNK == 0 && at >= (off_t)CHUNK) {
            free(i->chunks[at / CHUNK]);
            i->chunks[at / CHUNK] = NULL;
        } else {
            memset(bytes, 0, count);
        }
        at += count;
    }
    i->size = size;
    i->mtime = i->ctime = now();
}

#endif
