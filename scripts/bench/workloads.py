"""What is measured: each workload returns how many operations it did in how many seconds.

A family of workloads is a list of stages; each stage has fresh volumes on all targets, and its
workloads run in order, since later ones use what earlier ones left behind (`stat` looks at the
files of `create`). The driver drops all caches before each one that is not warm, so that requests
reach the filesystem and not the kernel's caches.

This file has the families of files and trees; `datapaths` and `volumes` have the others.
"""

import os
import random
import tarfile
import time

from machine import run, timed


class Workload:
    """One line of the table. `unit` is what operations count; `needs` names the workloads before it
    whose files it uses. A warm one runs right after its preparation, with all caches kept."""

    def __init__(self, name, unit, body, preparation=None, needs=(), warm=False):
        self.name, self.unit, self.needs, self.warm = name, unit, needs, warm
        self.body, self.preparation = body, preparation

    def prepare(self, target):
        """Makes what it needs; neither timed nor counted."""
        if self.preparation:
            self.preparation(target)

    def measure(self, target):
        """(operations, seconds) of one run on a mounted target."""
        return self.body(target)


class Stage:
    """Workloads that run on the same volumes, of `image_bytes`; with `written` on images that are
    written in full before."""

    def __init__(self, image_bytes, workloads, written=False):
        self.image_bytes, self.workloads, self.written = image_bytes, workloads, written


def counted(*words):
    """Runs one of the client programs, which print: workload, operations, seconds."""
    _, operations, seconds = run(*map(str, words)).split()
    return int(operations), float(seconds)


def fsops(programs, kind, folder, *numbers):
    os.makedirs(folder, exist_ok=True)
    return counted(programs["fsops"], kind, folder, *numbers)


# ---- metadata ------------------------------------------------------------------------------------


def metadata(sizes, programs):
    """Small files: `sizes` has files, per_directory and clients (a list)."""
    result = []
    for clients in sizes.clients:
        suffix = "" if clients == 1 else f"/{clients}c"

        def body(kind, clients=clients):
            return lambda target: fsops(
                programs, kind, os.path.join(target.directory, f"small-{clients}"), sizes.files,
                sizes.per_directory, clients)

        def add(name, kind=None, needs=("create",), warm=False):
            act = body(kind or name)
            result.append(Workload(name + suffix, "files", act, act if warm else None,
                                   tuple(need + suffix for need in needs), warm))

        add("create", needs=())
        add("stat")
        add("stat warm", "stat", warm=True)
        add("readdir")
        add("readdir+stat", "list")
        add("open+close", "open")
        add("rename")
        add("unlink")
        add("create 4k", "create4k", needs=("create", "unlink"))
        add("read 4k", "read4k", needs=("create", "unlink", "create 4k"))
    return [Stage(sizes.image_bytes, result)]


# ---- trees ---------------------------------------------------------------------------------------


def trees(sizes, programs):
    """What people do with a tree of source files: `sizes` has tree (a real one, or None) and
    tree_files (of a generated one)."""
    archive = os.path.join(programs["folder"], "tree.tar")
    if not os.path.exists(archive):
        if sizes.tree:
            parent, name = os.path.split(os.path.abspath(sizes.tree))
            run("tar", "cf", archive, "-C", parent, name)
        else:
            generate_archive(archive, sizes.tree_files)
    members = len(run("tar", "tf", archive).splitlines())
    git = ["git", "-c", "user.name=b", "-c", "user.email=b@localhost", "-c", "gc.auto=0"]
    result = []

    def tree(target):
        return os.path.join(target.directory, "tree")

    def add(name, command, preparation=None, needs=("tar",), warm=False):
        """`command` makes the words of the command from the target."""
        result.append(Workload(name, "files",
                               lambda target: (members, timed(*command(target))),
                               preparation, needs, warm))

    def make_repository(target):
        if not os.path.exists(os.path.join(tree(target), ".git")):
            run("git", "init", "-q", tree(target))
            run(*git, "-C", tree(target), "add", "-A")
            run(*git, "-C", tree(target), "commit", "-q", "-m", "all")

    def status(target):
        return ["git", "-C", tree(target), "status", "--porcelain"]

    def warm_up(target):
        make_repository(target)
        run(*status(target))

    add("tar", lambda t: ["tar", "xf", archive, "-C", tree(t)],
        lambda t: os.makedirs(tree(t)), needs=())
    add("find", lambda t: ["find", tree(t), "-newer", "/", "-name", "none"])
    add("du", lambda t: ["du", "-s", tree(t)])
    add("grep -r", lambda t: ["grep", "-r", "-c", "--binary-files=text", "^", tree(t)])
    add("cp -a", lambda t: ["cp", "-a", tree(t), tree(t) + "-copy"])
    add("rm -rf", lambda t: ["rm", "-rf", tree(t) + "-copy"], needs=("tar", "cp -a"))
    add("git status", status, make_repository)
    add("git status warm", status, warm_up, warm=True)
    return [Stage(sizes.image_bytes, result)]


def generate_archive(path, files, seed=1):
    """Writes a tar file like a source tree: many small files, some large ones, links. The same
    seed gives the same bytes."""
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
            archive.addfile(member(name, tarfile.REGTYPE, len(data)), Bytes(data))


class Bytes:
    """The one method of a file that tarfile wants, over bytes."""

    def __init__(self, data):
        self.data, self.position = data, 0

    def read(self, count):
        piece = self.data[self.position:self.position + count]
        self.position += len(piece)
        return piece


def timed_call(operations, call, *arguments):
    """(operations, seconds) of a call of Python."""
    start = time.monotonic()
    call(*arguments)
    return operations, time.monotonic() - start
