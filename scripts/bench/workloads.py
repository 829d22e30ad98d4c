"""What is measured: each workload returns how many operations it did in how many seconds.

Workloads run in the order of `sequence` on a fresh volume, since later ones use what earlier ones
left behind (`stat` looks at the files of `create`). The driver drops all caches before each one,
so that requests reach the filesystem and not the kernel's caches.
"""

import os
import random
import subprocess
import sys
import tarfile
import time


class WorkloadError(Exception):
    """A command of a workload failed; the message says which and how."""


class Workload:
    """One line of the table. `unit` is what `operations` counts."""

    def __init__(self, name, unit, body, preparation=None):
        self.name, self.unit, self.body, self.preparation = name, unit, body, preparation

    def prepare(self, directory):
        """Makes what it needs; neither timed nor counted."""
        if self.preparation:
            self.preparation(directory)

    def measure(self, directory):
        """(operations, seconds) of one run on the volume mounted at `directory`."""
        return self.body(directory)


def command(*words):
    result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            check=False)
    if result.returncode != 0:
        raise WorkloadError(f"{' '.join(words)}: exit {result.returncode}: "
                            f"{result.stderr.strip()[-300:]}")
    return result.stdout


def timed(operations, *words):
    start = time.monotonic()
    command(*words)
    return operations, time.monotonic() - start


def fsops(binary, *words):
    _, operations, seconds = command(binary, *map(str, words)).split()
    return int(operations), float(seconds)


def sequence(sizes, binary, archive, archive_files):
    """All workloads in order. `sizes` has files, per_directory, mebibytes and processes."""
    result = []

    def add(name, unit, body):
        result.append(Workload(name, unit, body))

    def small(kind, processes):
        def body(directory):
            folder = os.path.join(directory, f"small-{processes}")
            os.makedirs(folder, exist_ok=True)
            return fsops(binary, kind, folder, sizes.files, sizes.per_directory, processes)
        return body

    for processes in sizes.processes:
        suffix = "" if processes == 1 else f"/{processes}p"
        for kind in ("create", "stat", "readdir", "rename", "unlink", "create4k"):
            add(kind + suffix, "files", small(kind, processes))

    def untar(directory):
        folder = os.path.join(directory, "tree")
        os.makedirs(folder)
        return timed(archive_files, "tar", "xf", archive, "-C", folder)

    def remove(directory):
        return timed(archive_files, "rm", "-rf", os.path.join(directory, "tree"))

    add("tar", "files", untar)
    add("rm -rf", "files", remove)
    for kind in ("seqwrite", "seqread"):
        add(kind, "MiB", lambda directory, kind=kind: fsops(
            binary, kind, os.path.join(directory, "large"), sizes.mebibytes))
    return result


HERE = os.path.dirname(os.path.abspath(__file__))


def durable_sequence(sizes, binary):
    """The workloads in which every operation is made durable before the next. Each has a folder
    of its own, so none needs another. `sizes` has sync_operations and overwrite_mebibytes."""
    result = []

    def folder_of(name, directory):
        folder = os.path.join(directory, name.replace(" ", "-").replace("/", "-"))
        os.makedirs(folder, exist_ok=True)
        return folder

    def add(name, unit, share, words, preparation=None):
        """`share`: of `sync_operations`, so that a slow workload takes no longer than others."""
        operations = max(int(sizes.sync_operations * share), 1)
        result.append(Workload(
            name, unit,
            lambda directory: fsops(*(str(word).format(
                folder=folder_of(name, directory), operations=operations) for word in words)),
            preparation and (lambda directory: preparation(folder_of(name, directory)))))

    def synced(name, share, kind, call, threads, preparation=None):
        add(name, "syncs", share, (binary, kind, call, "{folder}", "{operations}", threads),
            preparation)

    def write_large(folder):
        command(binary, "prepare", folder, str(sizes.overwrite_mebibytes))

    for threads, share in ((1, 1), (4, 2), (16, 4), (64, 4)):
        synced(f"append/{threads}t", share, "append", "fsync", threads)
    synced("append data/1t", 1, "append", "fdatasync", 1)
    synced("append data/16t", 4, "append", "fdatasync", 16)
    for threads in (1, 4):
        synced(f"create4k/{threads}t", threads, "create", "fsync", threads)
    synced("overwrite/1t", 1, "overwrite", "fsync", 1, write_large)
    synced("overwrite/4t", 2, "overwrite", "fsync", 4, write_large)
    script = os.path.join(HERE, "sqlite_insert.py")
    for mode, share in (("delete", 0.5), ("wal", 1)):
        add(f"sqlite {mode}", "commits", share,
            (sys.executable, script, "{folder}", mode, "{operations}"))
    return result


def generated_archive(path, files, seed=1):
    """Writes a tar file like a source tree: many small files, some large ones, links. The same
    seed gives the same bytes. Returns the number of members."""
    source = random.Random(seed)
    words = [bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz_", k=source.randint(2, 12)))
             for _ in range(2000)]
    text = b" ".join(source.choices(words, k=200_000))
    folders = ["tree"]
    members = 0
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        def member(name, kind, size=0, target=""):
            nonlocal members
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, size, target
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            info.mtime = 1_600_000_000 + members
            members += 1
            return info

        archive.addfile(member("tree", tarfile.DIRTYPE))
        for number in range(files):
            if number % 14 == 0:
                parent = source.choice(folders[-40:])
                if parent.count("/") > 6:
                    parent = "tree"
                folders.append(f"{parent}/dir{number:05d}")
                archive.addfile(member(folders[-1], tarfile.DIRTYPE))
            name = f"{folders[-1]}/file{number:06d}.c"
            if number % 50 == 49:
                archive.addfile(member(name, tarfile.SYMTYPE, target="../some/where.c"))
                continue
            size = min(int(source.lognormvariate(8.2, 1.4)), 512 << 10)
            start = source.randrange(len(text) // 2)
            data = text[start:start + size]
            with_data = member(name, tarfile.REGTYPE, len(data))
            archive.addfile(with_data, Bytes(data))
    return members


class Bytes:
    """The one method of a file that tarfile wants, over bytes."""

    def __init__(self, data):
        self.data, self.position = data, 0

    def read(self, count):
        piece = self.data[self.position:self.position + count]
        self.position += len(piece)
        return piece


def archive_of(tree, path):
    """Packs a real tree; returns the number of members."""
    command("tar", "cf", path, "-C", os.path.dirname(os.path.abspath(tree)),
            os.path.basename(os.path.abspath(tree)))
    return len(command("tar", "tf", path).splitlines())
