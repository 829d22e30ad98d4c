/*
 * latency: how long single operations take while a volume is kept busy.
 *
 * usage: latency DIR SECONDS
 * prints a line for each kind: KIND COUNT P50 P99 P99.9 MAX (microseconds)
 *
 * One thread at full speed: create a file, write 4 KiB to it, stat one of the last files made, unlink
 * the oldest. The files go round in directories of 1000, at most 20,000 at a time. The stat asks
 * the filesystem, not the kernel's cache (AT_STATX_FORCE_SYNC). Nothing is synced.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES 20000
#define PER_DIRECTORY 1000

enum kind { CREATE, WRITE, STAT, UNLINK, KINDS };
static const char *const names[KINDS] = {"create", "write4k", "stat", "unlink"};

struct samples { /* nanoseconds */
    uint32_t *values;
    size_t count, room;
};

static struct samples samples[KINDS];

static void die(const char *what, const char *path)
{
    fprintf(stderr, "latency: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void add(enum kind kind, uint64_t nanoseconds)
{
    struct samples *s = &samples[kind];
    if (s->count == s->room) {
        s->room = s->room ? s->room * 2 : 1 << 20;
        s->values = realloc(s->values, s->room * sizeof *s->values);
        if (!s->values) die("realloc", "");
    }
    s->values[s->count++] = nanoseconds > UINT32_MAX ? UINT32_MAX : (uint32_t)nanoseconds;
}

static int smaller(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double at(const struct samples *s, double share) /* microseconds */
{
    size_t index = (size_t)((double)s->count * share);
    return s->values[index < s->count ? index : s->count - 1] / 1e3;
}

static void path_of(char *path, size_t size, const char *root, long number)
{
    snprintf(path, size, "%s/d%02ld/file-%08ld", root, number % FILES / PER_DIRECTORY, number);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: latency DIR SECONDS\n");
        return 2;
    }
    char path[4096];
    static char data[4096] = "latency";
    for (long d = 0; d < FILES / PER_DIRECTORY; d++) {
        snprintf(path, sizeof path, "%s/d%02ld", argv[1], d);
        if (mkdir(path, 0755)) die("mkdir", path);
    }
    uint64_t state = 1, end = now() + (uint64_t)(atof(argv[2]) * 1e9);
    for (long n = 0;; n++) {
        uint64_t t0 = now();
        if (t0 >= end) break;
        path_of(path, sizeof path, argv[1], n);
        int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
        uint64_t t1 = now();
        if (fd < 0) die("create", path);
        if (write(fd, data, sizeof data) != (ssize_t)sizeof data) die("write", path);
        uint64_t t2 = now();
        if (close(fd)) die("close", path);
        state = state * 6364136223846793005u + 1442695040888963407u;
        long back = (long)(state >> 33) % (n < FILES - 1 ? n + 1 : FILES - 1);
        path_of(path, sizeof path, argv[1], n - back);
        struct statx st;
        uint64_t t3 = now();
        if (statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st))
            die("stat", path);
        uint64_t t4 = now();
        if (n >= FILES - 1) {
            path_of(path, sizeof path, argv[1], n - (FILES - 1));
            uint64_t t5 = now();
            if (unlink(path)) die("unlink", path);
            add(UNLINK, now() - t5);
        }
        add(CREATE, t1 - t0);
        add(WRITE, t2 - t1);
        add(STAT, t4 - t3);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        struct samples *s = &samples[kind];
        if (s->count == 0) continue;
        qsort(s->values, s->count, sizeof *s->values, smaller);
        printf("%s %zu %.1f %.1f %.1f %.1f\n", names[kind], s->count, at(s, 0.5), at(s, 0.99),
               at(s, 0.999), at(s, 1.0));
    }
    return 0;
}
