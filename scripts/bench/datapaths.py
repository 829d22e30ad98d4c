"""The families of large files: reading and writing by fio, and what is made durable at once.

fio's files are of random bytes that are never twice the same; the time includes an fsync at the end
of buffered writes, and of nothing else.
"""

import json
import os
import sys

from machine import HERE, MeasureError, run
from workloads import Stage, Workload, counted


def fio(folder, operation, block, mebibytes, size, depth=0, engine="libaio"):
    """Runs one job on the file `large` in `folder`; (mebibytes or requests, seconds). With `depth`
    it is direct; requests are counted if they are smaller than 1 MiB and at random."""
    words = ["fio", "--name=job", "--thread", "--output-format=json", "--fallocate=none",
             f"--filename={os.path.join(folder, 'large')}", f"--rw={operation}", f"--bs={block}",
             f"--size={size}m", f"--io_size={mebibytes}m", "--refill_buffers", "--norandommap",
             # No time is spent on what nobody looks at, nor on trying out clocks.
             "--gtod_reduce=1", "--disk_util=0", "--clocksource=clock_gettime"]
    if depth:
        words += [f"--ioengine={engine}", f"--iodepth={depth}", "--direct=1"]
    else:
        words += [f"--ioengine={'mmap' if engine == 'mmap' else 'psync'}"]
        if operation.endswith("write"):
            words += ["--end_fsync=1"]
    output = run(*words)
    job = json.loads(output[output.index("{"):])["jobs"][0]
    if job["error"]:
        raise MeasureError(f"fio {operation}: error {job['error']}")
    done = job["write" if operation.endswith("write") else "read"]
    operations = done["total_ios"] if operation.startswith("rand") else done["io_bytes"] >> 20
    return operations, max(done["runtime"], 1) / 1000


def data(sizes, programs):
    """One large file of `sizes.mebibytes`; random requests on it are of 4 KiB, `random_mebibytes` in
    all. Writing at random comes last: it is the sequential layout that reads find."""
    result = []

    def add(name, operation, block, depth=0, engine="libaio", needs=("write",)):
        is_random = operation.startswith("rand")
        amount = sizes.random_mebibytes if is_random else sizes.mebibytes
        result.append(Workload(
            name, "requests" if is_random else "MiB",
            lambda target: fio(target.directory, operation, block, amount, sizes.mebibytes, depth,
                               engine), needs=needs))

    add("write", "write", "1m", needs=())
    add("read", "read", "1m")
    add("read 64k", "read", "64k")
    add("read direct/4d", "read", "1m", 4)
    for depth in (1, 4, 16, 32):
        add(f"random read/{depth}d", "randread", "4k", depth)
    add("random read buffered", "randread", "4k")
    add("random read mmap", "randread", "4k", engine="mmap")
    add("write again", "write", "1m")
    add("write 64k", "write", "64k")
    add("write direct/4d", "write", "1m", 4)
    for depth in (1, 16):
        add(f"random write/{depth}d", "randwrite", "4k", depth)
    add("random write buffered", "randwrite", "4k")
    add("random write mmap", "randwrite", "4k", engine="mmap")
    add("read after", "read", "1m")
    return [Stage(sizes.image_bytes, result)]


def durable(sizes, programs):
    """Every operation is durable before the next: `sizes` has sync_operations and
    overwrite_mebibytes. Each workload has a folder of its own, so none needs another."""
    result = []

    def folder_of(name, target):
        folder = os.path.join(target.directory, name.replace(" ", "-").replace("/", "-"))
        os.makedirs(folder, exist_ok=True)
        return folder

    def add(name, unit, share, words, preparation=None):
        """`share`: of `sync_operations`, so that a slow workload takes no longer than others."""
        operations = max(int(sizes.sync_operations * share), 1)
        result.append(Workload(
            name, unit,
            lambda target: counted(*(str(word).format(
                folder=folder_of(name, target), operations=operations) for word in words)),
            preparation and (lambda target: preparation(folder_of(name, target)))))

    def synced(name, share, kind, call, threads, preparation=None):
        add(name, "syncs", share,
            (programs["syncops"], kind, call, "{folder}", "{operations}", threads), preparation)

    def write_large(folder):
        run(programs["syncops"], "prepare", folder, str(sizes.overwrite_mebibytes))

    for threads, share in ((1, 1), (4, 2), (16, 4), (64, 4)):
        synced(f"append/{threads}t", share, "append", "fsync", threads)
    synced("append data/1t", 1, "append", "fdatasync", 1)
    synced("append data/16t", 4, "append", "fdatasync", 16)
    for threads in (1, 4):
        synced(f"create 4k/{threads}t", threads, "create", "fsync", threads)
    synced("overwrite/1t", 1, "overwrite", "fsync", 1, write_large)
    synced("overwrite/4t", 2, "overwrite", "fsync", 4, write_large)
    script = os.path.join(HERE, "sqlite_insert.py")
    for mode, share in (("delete", 0.5), ("wal", 1)):
        add(f"sqlite {mode}", "commits", share,
            (sys.executable, script, "{folder}", mode, "{operations}"))
    return [Stage(sizes.image_bytes, result, written=not sizes.smoke)]
