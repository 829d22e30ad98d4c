"""The families about volumes: snapshots, scrub and mount, and how costs grow with files and size."""

import os

from machine import Unsupported, drop_caches, run
from workloads import Stage, Workload, fsops, timed_call

SNAPSHOTS = 10


def unmounted(target, sizes):
    """Unmounts the volume and leaves nothing of it in memory."""
    if not target.has_image:
        raise Unsupported
    target.unmount()
    if not sizes.smoke:
        drop_caches()


def mounting(name, sizes):
    def body(target):
        unmounted(target, sizes)
        return timed_call(1, target.mount)
    return Workload(name, "mounts", body)


def offline(name, unit, sizes, act):
    """What `act` does with the volume while it is not mounted."""
    def body(target):
        unmounted(target, sizes)
        try:
            return timed_call(1, act, target)
        finally:
            target.mount()
    return Workload(name, unit, body)


def creating(name, prefix, count, change):
    """Snapshots, each of a volume that `change` has changed and written back since the last one."""
    def body(target):
        seconds = 0.0
        for number in range(count):
            change(target, number)
            target.settle()
            seconds += timed_call(1, target.create_snapshot, f"{prefix}{number}")[1]
        return count, seconds
    return Workload(name, "snapshots", body)


def append_to(target, number):
    with open(os.path.join(target.directory, "changed"), "ab") as file:
        file.write(b"%d" % number)


def volume(sizes, programs):
    """A volume with `sizes.files` small files and one of `sizes.mebibytes`."""
    def fill(target):
        fsops(programs, "create4k", os.path.join(target.directory, "small"), sizes.files,
              sizes.per_directory, 1)
        run(programs["fsops"], "seqwrite", os.path.join(target.directory, "large"),
            str(sizes.mebibytes))

    names = [f"s{number}" for number in range(SNAPSHOTS)]
    snapshots = creating("snapshot create", "s", SNAPSHOTS, append_to)
    snapshots.needs = ("fill",)
    return [Stage(sizes.image_bytes, [
        Workload("fill", "files", lambda target: timed_call(sizes.files, fill, target)),
        mounting("mount", sizes),
        snapshots,
        Workload("snapshot delete", "snapshots",
                 lambda target: timed_call(SNAPSHOTS, target.delete_snapshots, names),
                 needs=("fill", "snapshot create")),
        Workload("scrub", "MiB", lambda target: timed_call(
            sizes.mebibytes + sizes.files * 4 // 1024, target.scrub), needs=("fill",)),
        offline("check", "checks", sizes, lambda target: target.check()),
    ])]


def growth(sizes, programs):
    """The same operations on ten times as many files, up to `sizes.growth_files`, and on sparse
    volumes of each of `sizes.growth_gib`. A name is `WHAT at AMOUNT UNIT`, which is what the chart
    puts along its axis."""
    stages = []
    count = min(10_000, sizes.growth_files)
    while count <= sizes.growth_files:
        def files(kind, count=count):
            return lambda target: fsops(programs, kind, os.path.join(target.directory, "d"), count,
                                        1000, 1)
        label = f" at {count} files"
        stages.append(Stage(sizes.image_bytes, [
            Workload("create" + label, "files", files("create")),
            Workload("stat" + label, "files", files("stat")),
            Workload("readdir" + label, "files", files("readdir")),
            creating("snapshot" + label, "g", 3, append_to),
            mounting("mount" + label, sizes),
            offline("check" + label, "checks", sizes, lambda target: target.check()),
            Workload("unlink" + label, "files", files("unlink")),
        ]))
        count *= 10
    for gibibytes in sizes.growth_gib:
        label = f" at {gibibytes} GiB"
        stages.append(Stage(gibibytes << 30, [
            offline("format" + label, "formats", sizes, lambda target: target.format()),
            mounting("mount" + label, sizes),
        ]))
    return stages
