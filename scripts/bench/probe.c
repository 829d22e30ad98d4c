/*
 * probe: counts, inside a FUSE daemon, the requests it reads from /dev/fuse and what it allocates
 * while it works on each, by opcode.
 *
 * To be preloaded: LD_PRELOAD=probe.so PROBE_FILE=counts DAEMON ... The file is mapped and made of
 * struct counts below; who reads it may do so at any time. A thread's request is the last that it has
 * read; between two of them (waiting, its own start) allocations count as opcode 0, as do those of
 * threads that read no requests. What libfuse allocates itself (the record of each request) is
 * counted apart.
 *
 * Requests by io_uring are not seen: measure with noio_uring.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define OPCODES 64

struct counts {
    atomic_uint_least64_t requests[OPCODES];
    atomic_uint_least64_t allocations[OPCODES];
    atomic_uint_least64_t of_libfuse[OPCODES];
};

static struct counts unused, *counts = &unused;
static uintptr_t libfuse_start, libfuse_end;
static __thread uint32_t opcode __attribute__((tls_model("initial-exec")));

/* Without allocating: dlsym may, before there is anything to call. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static void count(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    int is_libfuse = at >= libfuse_start && at < libfuse_end;
    atomic_fetch_add_explicit(&(is_libfuse ? counts->of_libfuse : counts->allocations)[opcode], 1,
                              memory_order_relaxed);
}

void *malloc(size_t size)
{
    count(__builtin_return_address(0));
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size)
{
    count(__builtin_return_address(0));
    *result = __libc_memalign(alignment, size);
    return *result ? 0 : 12; /* ENOMEM */
}

static int is_fuse_device(int descriptor)
{
    static atomic_int known = -1; /* a daemon has one; its clones are not used */
    struct stat status;
    if (atomic_load_explicit(&known, memory_order_relaxed) == descriptor) return 1;
    if (fstat(descriptor, &status) || !S_ISCHR(status.st_mode)
        || status.st_rdev != makedev(10, 229)) return 0;
    atomic_store_explicit(&known, descriptor, memory_order_relaxed);
    return 1;
}

static ssize_t noted(int descriptor, const void *buffer, ssize_t result)
{
    if (result >= 40 && is_fuse_device(descriptor)) {
        memcpy(&opcode, (const char *)buffer + 4, sizeof opcode);
        if (opcode >= OPCODES) opcode = 0;
        atomic_fetch_add_explicit(&counts->requests[opcode], 1, memory_order_relaxed);
    }
    return result;
}

static ssize_t (*next_read)(int, void *, size_t);

ssize_t read(int descriptor, void *buffer, size_t size)
{
    if (!next_read) *(void **)&next_read = dlsym(RTLD_NEXT, "read");
    /* What is being worked on ends where the next request is asked for. */
    if (opcode && is_fuse_device(descriptor)) opcode = 0;
    return noted(descriptor, buffer, next_read(descriptor, buffer, size));
}

static int find_libfuse(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size, (void)data;
    if (!strstr(info->dlpi_name, "libfuse3")) return 0;
    for (int h = 0; h < info->dlpi_phnum; h++) {
        if (info->dlpi_phdr[h].p_type != PT_LOAD) continue;
        uintptr_t start = info->dlpi_addr + info->dlpi_phdr[h].p_vaddr;
        if (!libfuse_start || start < libfuse_start) libfuse_start = start;
        if (start + info->dlpi_phdr[h].p_memsz > libfuse_end)
            libfuse_end = start + info->dlpi_phdr[h].p_memsz;
    }
    return 1;
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("PROBE_FILE");
    int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file < 0) return;
    void *memory = MAP_FAILED;
    if (ftruncate(file, sizeof *counts) == 0)
        memory = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory != MAP_FAILED) counts = memory;
    dl_iterate_phdr(find_libfuse, NULL);
}
