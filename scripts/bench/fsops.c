/*
 * fsops: one small workload on a directory, timed.
 *
 * The files lie in directories of at most PER_DIRECTORY each; with several processes every process
 * has its own directories. All processes start at one moment; the time ends when the last has
 * finished, and covers what its workload names and nothing else (the reader of a directory skips
 * nothing, `stat` follows no readdir, `list` is readdir with an lstat of each name). `create` and
 * `create4k` include making the directories, `read4k` opening and closing.
 *
 * usage: fsops create|create4k|stat|readdir|list|open|read4k|rename|unlink DIR FILES PER_DIRECTORY PROCESSES
 *        fsops seqwrite FILE MEBIBYTES
 * prints: WORKLOAD OPERATIONS SECONDS (for seqwrite, operations are requests of 1 MiB)
 *
 * `rename` and `unlink` go through the files of `create`; both leave a tree on which the other
 * still works. Any failed call ends the program with a message and status 1.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEBIBYTE ((size_t)1 << 20)

static void die(const char *what, const char *path)
{
    fprintf(stderr, "fsops: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* ---- one file each --------------------------------------------------------------------------- */

static void create_file(const char *path, size_t bytes)
{
    static const char data[4096] = "fsops";
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd < 0) die("create", path);
    if (bytes > 0 && write(fd, data, bytes) != (ssize_t)bytes) die("write", path);
    if (close(fd)) die("close", path);
}

static void do_create(const char *path) { create_file(path, 0); }
static void do_create4k(const char *path) { create_file(path, 4096); }

static void do_stat(const char *path)
{
    struct stat st;
    if (lstat(path, &st)) die("stat", path);
}

static void open_file(const char *path, size_t bytes)
{
    char data[4096];
    int fd = open(path, O_RDONLY);
    if (fd < 0) die("open", path);
    if (bytes > 0 && read(fd, data, bytes) != (ssize_t)bytes) die("read", path);
    if (close(fd)) die("close", path);
}

static void do_open(const char *path) { open_file(path, 0); }
static void do_read4k(const char *path) { open_file(path, 4096); }

/* Renames to the other of two names: a second run goes back. */
static void do_rename(const char *path)
{
    char other[4096];
    snprintf(other, sizeof other, "%s.renamed", path);
    if (rename(path, other) == 0) return;
    if (errno != ENOENT || rename(other, path)) die("rename", path);
}

static void do_unlink(const char *path)
{
    char other[4096];
    if (unlink(path) == 0) return;
    snprintf(other, sizeof other, "%s.renamed", path);
    if (errno != ENOENT || unlink(other)) die("unlink", path);
}

/* ---- all files of one process ---------------------------------------------------------------- */

struct share { /* what one process works on */
    const char *root;
    long first, files, per_directory;
};

static void directory_path(char *path, size_t size, const struct share *s, long index)
{
    snprintf(path, size, "%s/d%06ld", s->root, index / s->per_directory);
}

static void for_each_file(const struct share *s, void (*operation)(const char *), int make)
{
    char directory[2048], path[2112];
    for (long n = 0; n < s->files; n++) {
        long index = s->first + n;
        if (n % s->per_directory == 0) {
            directory_path(directory, sizeof directory, s, index);
            if (make && mkdir(directory, 0755) && errno != EEXIST) die("mkdir", directory);
        }
        snprintf(path, sizeof path, "%s/file-%08ld", directory, index);
        operation(path);
    }
}

/* Lists every directory to its end and insists on having seen each file once. */
static void read_directories(const struct share *s, int with_stat)
{
    char directory[2048];
    struct stat st;
    long seen = 0;
    for (long n = 0; n < s->files; n += s->per_directory) {
        directory_path(directory, sizeof directory, s, s->first + n);
        DIR *stream = opendir(directory);
        if (!stream) die("opendir", directory);
        for (struct dirent *e; (errno = 0, e = readdir(stream)) != NULL;)
            if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
                if (with_stat && fstatat(dirfd(stream), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
                    die("stat", e->d_name);
                seen++;
            }
        if (errno) die("readdir", directory);
        closedir(stream);
    }
    if (seen != s->files) {
        fprintf(stderr, "fsops: listed %ld files of %ld\n", seen, s->files);
        exit(1);
    }
}

static void run(const char *workload, const struct share *s)
{
    if (!strcmp(workload, "create")) for_each_file(s, do_create, 1);
    else if (!strcmp(workload, "create4k")) for_each_file(s, do_create4k, 1);
    else if (!strcmp(workload, "stat")) for_each_file(s, do_stat, 0);
    else if (!strcmp(workload, "rename")) for_each_file(s, do_rename, 0);
    else if (!strcmp(workload, "unlink")) for_each_file(s, do_unlink, 0);
    else if (!strcmp(workload, "open")) for_each_file(s, do_open, 0);
    else if (!strcmp(workload, "read4k")) for_each_file(s, do_read4k, 0);
    else read_directories(s, !strcmp(workload, "list"));
}

/* ---- one large file -------------------------------------------------------------------------- */

/* Writes with an fsync at the end, which belongs to the time; nothing is sparse. */
static int sequential(const char *path, long mebibytes)
{
    char *buffer = malloc(MEBIBYTE);
    unsigned state = 1;
    for (size_t i = 0; i < MEBIBYTE; i++) {
        state = state * 1664525u + 1013904223u;
        buffer[i] = (char)(state >> 24);
    }
    double start = seconds();
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (fd < 0) die("open", path);
    for (long n = 0; n < mebibytes; n++) {
        memcpy(buffer, &n, sizeof n); /* no two blocks of requests alike */
        if (write(fd, buffer, MEBIBYTE) != (ssize_t)MEBIBYTE) die("write", path);
    }
    if (fsync(fd)) die("fsync", path);
    if (close(fd)) die("close", path);
    printf("seqwrite %ld %.6f\n", mebibytes, seconds() - start);
    return 0;
}

static int is_one_of(const char *word, const char *const *words)
{
    while (*words && strcmp(word, *words)) words++;
    return *words != NULL;
}

int main(int argc, char **argv)
{
    static const char *const small[] = {"create", "create4k", "stat", "readdir", "list", "open",
                                        "read4k", "rename", "unlink", NULL};
    if (argc == 4 && !strcmp(argv[1], "seqwrite")) return sequential(argv[2], atol(argv[3]));
    if (argc != 6 || !is_one_of(argv[1], small)) {
        fprintf(stderr, "usage: fsops WORKLOAD DIR FILES PER_DIRECTORY PROCESSES\n"
                        "       fsops seqwrite FILE MEBIBYTES\n");
        return 2;
    }
    long files = atol(argv[3]), per_directory = atol(argv[4]), processes = atol(argv[5]);
    if (files < 1 || per_directory < 1 || processes < 1) return 2;
    /* Whole directories for each process, so that no two work in one. */
    long directories = (files + per_directory - 1) / per_directory;
    long each = (directories + processes - 1) / processes * per_directory;
    int gate[2];
    if (pipe(gate)) die("pipe", "");
    for (long p = 0; p < processes; p++) {
        struct share s = {argv[2], p * each, each, per_directory};
        if (s.first + s.files > files) s.files = files - s.first;
        pid_t child = fork();
        if (child < 0) die("fork", "");
        if (child > 0) continue;
        char byte;
        close(gate[1]);
        if (read(gate[0], &byte, 1) != 0) die("gate", ""); /* end of file: everybody goes */
        if (s.files > 0) run(argv[1], &s);
        _exit(0);
    }
    close(gate[0]);
    double start = seconds();
    close(gate[1]);
    int failed = 0, status;
    while (wait(&status) > 0) failed |= status != 0;
    printf("%s %ld %.6f\n", argv[1], files, seconds() - start);
    return failed;
}
