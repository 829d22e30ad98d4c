"""Counts the requests that the kernel sends to a FUSE daemon for one operation, and what the daemon
allocates on the heap while it works on them: for AegisFS, and for the trivial server (`ceiling.c`),
which shows what the kernel and its permission checks force on everybody.

Both daemons run with `probe.c` preloaded and requests by /dev/fuse. Each operation is made many times
on files of its own; what is shown is the count divided by the number of operations.

Needs root, to mount and to drop caches.
"""

import argparse
import collections
import json
import mmap
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(os.path.dirname(HERE))
OPCODES = 64
NAMES = {
    1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK", 8: "MKNOD",
    9: "MKDIR", 10: "UNLINK", 11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN", 15: "READ",
    16: "WRITE", 17: "STATFS", 18: "RELEASE", 20: "FSYNC", 21: "SETXATTR", 22: "GETXATTR",
    23: "LISTXATTR", 25: "FLUSH", 26: "INIT", 27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR",
    30: "FSYNCDIR", 34: "ACCESS", 35: "CREATE", 36: "INTERRUPT", 38: "DESTROY", 39: "IOCTL",
    42: "BATCH_FORGET", 43: "FALLOCATE", 44: "READDIRPLUS", 45: "RENAME2", 46: "LSEEK",
    47: "COPY_FILE_RANGE", 51: "TMPFILE", 52: "STATX",
}
# The kernel gives inodes up when it likes, so these belong to no operation.
UNTIMELY = {2, 42, 36}


class Daemon:
    """A mounted daemon with the probe in it."""

    def __init__(self, name, work, probe, command):
        self.name = name
        self.folder = os.path.join(work, name)
        self.directory = os.path.join(self.folder, "mount")
        os.makedirs(self.directory)
        counts = os.path.join(self.folder, "counts")
        environment = dict(os.environ, LD_PRELOAD=probe, PROBE_FILE=counts)
        with open(os.path.join(self.folder, "log"), "wb") as log:
            self.process = subprocess.Popen(
                [*command, self.directory], env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log)
        deadline = time.monotonic() + 60
        while not os.path.ismount(self.directory):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"requests: {name}: no mount")
            time.sleep(0.01)
        os.statvfs(self.directory)
        with open(counts, "r+b") as file:
            self.counts = mmap.mmap(file.fileno(), 3 * 8 * OPCODES)

    def read(self):
        """Requests, and allocations by the daemon itself, by opcode; when nothing moves any more."""
        def now():
            words = struct.unpack(f"{3 * OPCODES}Q", self.counts)
            return words[:OPCODES], words[OPCODES:2 * OPCODES]
        before = now()
        while True:
            time.sleep(0.03)
            after = now()
            if after[0] == before[0]:
                return after
            before = after

    def close(self):
        for _ in range(50):
            if subprocess.run(["umount", self.directory], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "-l", self.directory], capture_output=True, check=False)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def drop_caches(folder):
    """Names and inodes; the pages of a file go with its inode."""
    subprocess.run(["sync", "--file-system", folder], check=True)
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("2")


def create(path, bytes_=0):
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    if bytes_:
        os.write(descriptor, b"x" * bytes_)
    os.close(descriptor)


def opened(path, flags, body):
    descriptor = os.open(path, flags)
    try:
        body(descriptor)
    finally:
        os.close(descriptor)


def list_with_attributes(path):
    with os.scandir(path) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


FILES_IN_DIRECTORY = 100


def operations(folder, count):
    """(name, number of operations, what to do before, what to count), in an order in which each
    finds what it needs."""
    def path(kind, number):
        return f"{folder}/{kind}-{number:03}"

    def each(body):
        def run():
            for number in range(count):
                body(number)
        return run

    def cold():
        drop_caches(folder)
        os.stat(folder)

    def make_directories():
        for number in range(count):
            os.mkdir(path("list", number))
            for entry in range(FILES_IN_DIRECTORY):
                create(f"{path('list', number)}/{entry:03}")

    def databases(mode):
        # isolation_level=None: each statement is a transaction.
        database = sqlite3.connect(f"{folder}/{mode}.db", isolation_level=None)
        database.execute(f"pragma journal_mode={mode}")
        database.execute("pragma synchronous=full")
        database.execute("create table t (id integer primary key, v blob)")
        database.execute("insert into t (v) values (?)", (b"x" * 100,))
        return database

    def transactions(mode):
        state = {}
        def before():
            state["database"] = databases(mode)
        def run():
            for _ in range(count):
                state["database"].execute("insert into t (v) values (?)", (b"x" * 100,))
        return before, run

    nothing = lambda: None
    handles = {}

    def open_for_append():
        create(f"{folder}/appended", 4096)
        handles["append"] = os.open(f"{folder}/appended", os.O_WRONLY | os.O_APPEND)
        os.write(handles["append"], b"x" * 4096)
        os.fsync(handles["append"])

    def append(_):
        os.write(handles["append"], b"x" * 4096)
        os.fsync(handles["append"])

    def open_for_overwrite():
        os.close(handles["append"])
        handles["over"] = os.open(f"{folder}/appended", os.O_WRONLY)

    delete_before, delete_run = transactions("delete")
    wal_before, wal_run = transactions("wal")
    return [
        ("create", nothing, each(lambda n: create(path("empty", n)))),
        ("create 4 KiB", nothing, each(lambda n: create(path("full", n), 4096))),
        ("stat after close", nothing, each(lambda n: os.stat(path("full", n)))),
        ("stat, cold", cold, each(lambda n: os.stat(path("full", n)))),
        ("stat, warm", nothing, each(lambda n: os.stat(path("full", n)))),
        ("open, close", nothing, each(lambda n: opened(path("full", n), os.O_RDONLY, lambda _: 0))),
        ("read 4 KiB, cold", cold, each(lambda n: opened(
            path("full", n), os.O_RDONLY, lambda d: os.read(d, 4096)))),
        ("read 4 KiB, cached", nothing, each(lambda n: opened(
            path("full", n), os.O_RDONLY, lambda d: os.read(d, 4096)))),
        ("open, write 4 KiB, close", nothing, each(lambda n: opened(
            path("full", n), os.O_WRONLY, lambda d: os.write(d, b"y" * 4096)))),
        ("append 4 KiB, fsync", open_for_append, each(append)),
        ("write 4 KiB, open file", open_for_overwrite, each(
            lambda n: os.pwrite(handles["over"], b"z" * 4096, 4096 * n))),
        ("chmod", nothing, each(lambda n: os.chmod(path("full", n), 0o600))),
        ("truncate", nothing, each(lambda n: os.truncate(path("full", n), 100))),
        ("link", nothing, each(lambda n: os.link(path("full", n), path("linked", n)))),
        ("symlink", nothing, each(lambda n: os.symlink("target", path("symbolic", n)))),
        ("rename", nothing, each(lambda n: os.rename(path("full", n), path("moved", n)))),
        ("rename onto a file", nothing, each(
            lambda n: os.rename(path("moved", n), path("empty", n)))),
        ("unlink", nothing, each(lambda n: os.unlink(path("linked", n)))),
        ("mkdir", nothing, each(lambda n: os.mkdir(path("directory", n)))),
        ("rmdir", nothing, each(lambda n: os.rmdir(path("directory", n)))),
        ("list 100 names, cold", lambda: (make_directories(), cold()),
         each(lambda n: os.listdir(path("list", n)))),
        ("list 100 with stat, cold", cold, each(lambda n: list_with_attributes(path("list", n)))),
        ("sqlite transaction, rollback", delete_before, delete_run),
        ("sqlite transaction, WAL", wal_before, wal_run),
    ]


def measure(daemon, count):
    folder = os.path.join(daemon.directory, "work")
    os.mkdir(folder)
    result = {}
    for name, before, body in operations(folder, count):
        before()
        start = daemon.read()
        body()
        end = daemon.read()
        requests, allocations = collections.OrderedDict(), collections.OrderedDict()
        for opcode in range(1, OPCODES):
            sent = end[0][opcode] - start[0][opcode]
            label = NAMES.get(opcode, str(opcode))
            if sent and opcode not in UNTIMELY:
                requests[label] = round(sent / count, 2)
            # A thread may still allocate for the request that it read before.
            if sent:
                allocations[label] = round((end[1][opcode] - start[1][opcode]) / sent, 2)
        result[name] = {"requests": requests, "allocations": allocations}
    return result


def describe(requests):
    return ", ".join(name if number == 1 else f"{number:g} {name}"
                     for name, number in requests.items()) or "none"


def markdown(document):
    lines = ["| operation | trivial server | AegisFS |", "| --- | --- | --- |"]
    for name, own in document["aegisfs"].items():
        least = describe(document["ceiling"][name]["requests"])
        mine = describe(own["requests"])
        lines.append(f"| {name} | {least} | {'the same' if mine == least else mine} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="requests", description=__doc__.split("\n\n")[0])
    parser.add_argument("--aegisfs", metavar="BINARY", default=os.environ.get("AEGISFS_BINARY")
                        or os.path.join(PROJECT, ".build", "release", "aegisfs"))
    parser.add_argument("--options", default="noio_uring", help="to mount AegisFS with")
    parser.add_argument("--count", type=int, default=64, help="how often each operation is made")
    parser.add_argument("--json", action="store_true", help="all counts instead of the table")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("requests: needs root, for mounts and dropping caches")
    # Ends by way of every cleanup.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    work = tempfile.mkdtemp(prefix="aegisfs-requests-")
    daemons = []
    try:
        compiler = os.environ.get("CC", "cc")
        probe, ceiling = os.path.join(work, "probe.so"), os.path.join(work, "ceiling.bin")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", probe,
                        os.path.join(HERE, "probe.c"), "-ldl"], check=True)
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True,
                               text=True, check=True).stdout.split()
        subprocess.run([compiler, "-O2", "-o", ceiling, os.path.join(HERE, "ceiling.c"), *flags,
                        "-lpthread"], check=True)
        image = os.path.join(work, "image")
        with open(image, "wb") as file:
            file.truncate(1 << 30)
        subprocess.run([arguments.aegisfs, "format", "--force", "--quiet", image], check=True)
        daemons.append(Daemon("ceiling", work, probe, [ceiling, "-f"]))
        daemons.append(Daemon("aegisfs", work, probe, [
            arguments.aegisfs, "mount", "--foreground", "-o", arguments.options, image]))
        document = {daemon.name: measure(daemon, arguments.count) for daemon in daemons}
    finally:
        for daemon in daemons:
            daemon.close()
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps(document, indent=1) if arguments.json else markdown(document))


if __name__ == "__main__":
    main()
