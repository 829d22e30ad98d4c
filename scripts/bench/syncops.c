/*
 * syncops: one workload in which every operation ends with fsync(2) or fdatasync(2), timed.
 *
 * usage: syncops append|create|overwrite fsync|fdatasync DIR OPERATIONS THREADS
 * prints: WORKLOAD OPERATIONS SECONDS
 *        syncops prepare DIR MEBIBYTES
 * writes and syncs the file of `overwrite`.
 *
 *   append     4 KiB to the end of a file, and sync; a file for each thread, made before
 *   create     a new file with 4 KiB, and sync; a directory for each thread, made before
 *   overwrite  4 KiB at a random place of the file that `prepare` wrote, and sync; the threads share
 *              it, the places are the same in every run
 *
 * All threads start at one moment; the time ends with the last one's last sync. What is made before
 * is synced before. Any failed call ends the program with a message and status 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK ((size_t)4096)
#define MEBIBYTE ((size_t)1 << 20)

static const char *workload, *root;
static int data_only;
static long operations, threads;
static uint64_t shared_blocks;
static int shared_fd = -1;
static pthread_barrier_t gate;

static void die(const char *what, const char *path)
{
    fprintf(stderr, "syncops: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static void write_block(int fd, uint64_t *state, off_t offset)
{
    uint64_t block[BLOCK / 8];
    for (size_t i = 0; i < BLOCK / 8; i++) block[i] = next_random(state);
    ssize_t done = offset < 0 ? write(fd, block, BLOCK) : pwrite(fd, block, BLOCK, offset);
    if (done != (ssize_t)BLOCK) die("write", root);
}

static void sync_file(int fd)
{
    if (data_only ? fdatasync(fd) : fsync(fd)) die("sync", root);
}

static void sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    /* Not every filesystem can sync a directory; nothing that is timed depends on this one. */
    if (fd < 0) die("open", path);
    (void)!fsync(fd);
    close(fd);
}

static void *run(void *argument)
{
    long thread = (long)(intptr_t)argument;
    long count = operations / threads + (thread < operations % threads);
    uint64_t state = 1000 + (uint64_t)thread;
    char place[2048], path[2112];
    int fd = shared_fd;
    snprintf(place, sizeof place, "%s/t%03ld", root, thread);
    if (!strcmp(workload, "create")) {
        if (mkdir(place, 0755)) die("mkdir", place);
        sync_directory(place);
    } else if (!strcmp(workload, "append")) {
        fd = open(place, O_CREAT | O_EXCL | O_WRONLY | O_APPEND, 0644);
        if (fd < 0 || fsync(fd)) die("create", place);
    }
    pthread_barrier_wait(&gate);
    pthread_barrier_wait(&gate); /* the clock was read in between */
    for (long n = 0; n < count; n++) {
        if (!strcmp(workload, "append")) {
            write_block(fd, &state, -1);
            sync_file(fd);
        } else if (!strcmp(workload, "overwrite")) {
            off_t offset = (off_t)(next_random(&state) % shared_blocks * BLOCK);
            write_block(fd, &state, offset);
            sync_file(fd);
        } else {
            snprintf(path, sizeof path, "%s/file-%06ld", place, n);
            int file = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
            if (file < 0) die("create", path);
            write_block(file, &state, -1);
            sync_file(file);
            if (close(file)) die("close", path);
        }
    }
    return NULL;
}

static void open_large(int flags)
{
    char path[2048];
    struct stat st;
    snprintf(path, sizeof path, "%s/large", root);
    shared_fd = open(path, flags, 0644);
    if (shared_fd < 0 || fstat(shared_fd, &st)) die("open", path);
    shared_blocks = (uint64_t)st.st_size / BLOCK;
}

/* The file of `overwrite`, every block of it written. */
static int prepare(long mebibytes)
{
    open_large(O_CREAT | O_EXCL | O_RDWR);
    uint64_t *buffer = malloc(MEBIBYTE), state = 1;
    if (!buffer) die("malloc", root);
    for (long n = 0; n < mebibytes; n++) {
        for (size_t i = 0; i < MEBIBYTE / 8; i++) buffer[i] = next_random(&state);
        if (write(shared_fd, buffer, MEBIBYTE) != (ssize_t)MEBIBYTE) die("write", root);
    }
    if (fsync(shared_fd)) die("fsync", root);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "prepare")) {
        root = argv[2];
        return prepare(atol(argv[3]));
    }
    if (argc != 6) {
        fprintf(stderr, "usage: syncops append|create|overwrite fsync|fdatasync DIR OPERATIONS "
                        "THREADS\n       syncops prepare DIR MEBIBYTES\n");
        return 2;
    }
    workload = argv[1];
    data_only = !strcmp(argv[2], "fdatasync");
    root = argv[3];
    operations = atol(argv[4]);
    threads = atol(argv[5]);
    int overwrites = !strcmp(workload, "overwrite");
    if ((!overwrites && strcmp(workload, "append") && strcmp(workload, "create"))
        || (!data_only && strcmp(argv[2], "fsync")) || operations < 1 || threads < 1)
        return 2;
    if (overwrites) open_large(O_RDWR);
    if (overwrites && shared_blocks == 0) die("prepare first", root);
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    if (!ids || pthread_barrier_init(&gate, NULL, (unsigned)threads + 1)) die("threads", "");
    for (long t = 0; t < threads; t++)
        if ((errno = pthread_create(&ids[t], NULL, run, (void *)(intptr_t)t))) die("thread", "");
    pthread_barrier_wait(&gate);
    sync_directory(root);
    double start = seconds();
    pthread_barrier_wait(&gate);
    for (long t = 0; t < threads; t++) pthread_join(ids[t], NULL);
    printf("%s %ld %.6f\n", workload, operations, seconds() - start);
    return 0;
}
