"""The filesystems that are measured: how each is made, mounted and taken down.

A target owns everything it starts (image, loop device, mount, daemon) and gives all of it back
in `close`, whatever state it is in. Daemons are started in the foreground as children of the
driver, so that they are known by their process and never by a name.
"""

import json
import os
import shutil
import subprocess
import time

MOUNT_TIMEOUT_S = 30
UNMOUNT_TIMEOUT_S = 300


class TargetError(Exception):
    """A target could not be made or mounted; the message says why."""


def run(*command, timeout=600):
    """Runs a command and returns its standard output; its failure is a TargetError."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=timeout)
    if result.returncode != 0:
        raise TargetError(f"{' '.join(command)}: exit {result.returncode}: "
                          f"{result.stderr.strip()[-400:]}")
    return result.stdout


def is_mounted(directory):
    """True if something is mounted on `directory`. Reads the kernel's table: a stat would ask
    the daemon, which may be dead."""
    wanted = os.path.realpath(os.path.dirname(directory)) + "/" + os.path.basename(directory)
    with open("/proc/self/mountinfo") as table:
        return any(line.split()[4].replace("\\040", " ") == wanted for line in table)


def require_written(image, size):
    """An image of `size` bytes, all of them written: the host's filesystem has no place to find
    and no extent to convert when the volume on it is flushed. One that is so already stays."""
    if not is_written(image, size):
        zeros = bytes(1 << 20)
        with open(image, "wb") as file:
            for _ in range(size >> 20):
                file.write(zeros)
            os.fsync(file.fileno())


def is_written(image, size):
    if not os.path.exists(image):
        return False
    status = os.stat(image)
    return status.st_size == size and status.st_blocks * 512 >= size


class Target:
    """One filesystem on an image of `size` bytes in the folder `work`.

    A sparse image lives as long as the target. One that is written in full stays for the next
    target of this name, since writing it takes longer than measuring.
    """

    name = "?"
    needs = ()
    has_image = True
    loop = None

    def __init__(self, work, size, written=False):
        self.folder = os.path.join(work, self.name)
        self.image = os.path.join(self.folder, "image")
        if written:
            os.makedirs(os.path.join(work, "images"), exist_ok=True)
            self.image = os.path.join(work, "images", self.name)
        self.directory = os.path.join(self.folder, "mount")
        self.size = size
        self.written = written
        self.daemon = None

    @classmethod
    def missing(cls):
        """The first program that this target needs and the machine has not; None if complete."""
        path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
        return next((tool for tool in cls.needs if not shutil.which(tool, path=path)), None)

    def open(self):
        os.makedirs(self.directory)
        if self.written and self.has_image:
            require_written(self.image, self.size)
        else:
            with open(self.image, "wb") as image:
                image.truncate(self.size)
        self.start()
        if not is_mounted(self.directory):
            raise TargetError(f"{self.name}: not mounted")
        if self.written and self.has_image and not is_written(self.image, self.size):
            raise TargetError(f"{self.name}: making the volume punched holes into its image")

    def start(self):
        raise NotImplementedError

    def attach(self):
        """A loop device over the image, through the page cache of the host like the image is."""
        self.loop = run("losetup", "--find", "--show", "--direct-io=off", self.image).strip()
        return self.loop

    def counters(self):
        """Counts that grow while the target works: what its journal and its loop device did."""
        counts = {}
        if self.loop:
            with open(f"/sys/block/{os.path.basename(self.loop)}/stat") as file:
                fields = [int(field) for field in file.read().split()]
            counts.update(device_writes=fields[4], device_bytes=fields[6] * 512)
            if len(fields) > 15:
                counts["device_flushes"] = fields[15]
        return counts

    def start_daemon(self, *command):
        """Starts a daemon that stays in the foreground, and waits for its mount."""
        log_path = os.path.join(self.folder, "log")
        with open(log_path, "wb") as log:
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=log, start_new_session=True)
        deadline = time.monotonic() + MOUNT_TIMEOUT_S
        while not is_mounted(self.directory):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                with open(log_path, errors="replace") as log:
                    raise TargetError(f"{self.name}: no mount: {log.read().strip()[-400:]}")
            time.sleep(0.01)

    def unmount(self):
        run("umount", self.directory, timeout=UNMOUNT_TIMEOUT_S)

    def close(self):
        """Takes everything down; never raises, so that the next target is taken down too."""
        for attempt in range(5):
            if not is_mounted(self.directory):
                break
            try:
                self.unmount()
            except (TargetError, subprocess.TimeoutExpired, OSError):
                time.sleep(0.2 * (attempt + 1))
        if is_mounted(self.directory):
            subprocess.run(["umount", "-l", self.directory], capture_output=True, check=False)
        if self.daemon:
            try:
                self.daemon.wait(UNMOUNT_TIMEOUT_S if self.daemon.poll() is None else 0)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self):
        """Gives back what `start` took besides the mount and the daemon."""
        if self.loop:
            subprocess.run(["losetup", "-d", self.loop], capture_output=True, check=False)


class AegisFS(Target):
    name = "aegisfs"
    binary = None

    @classmethod
    def with_binary(cls, name, binary):
        """A kind of target with a name of its own, for measuring two binaries side by side."""
        return type(f"AegisFS_{name}", (cls,), {"name": name, "binary": os.path.abspath(binary)})

    @classmethod
    def missing(cls):
        return None if cls.binary and os.access(cls.binary, os.X_OK) else "aegisfs"

    def start(self):
        self.start_on(self.image)

    def start_on(self, device, *options):
        run(self.binary, "format", "--force", "--quiet", device)
        run(self.binary, "mount", *options, device, self.directory)

    def unmount(self):
        run(self.binary, "umount", self.directory, timeout=UNMOUNT_TIMEOUT_S)

    def status(self):
        return json.loads(run(self.binary, "status", "--json", self.directory))

    def counters(self):
        counts = super().counters()
        status = self.status()
        journal = status.get("journal") or {}
        counts.update(checkpoints=status["checkpoints"])
        for name in ("flushes", "records", "seals", "written_bytes"):
            if name in journal:
                counts[f"journal_{name}"] = journal[name]
        return counts


class AegisFSLoop(AegisFS):
    """On a loop device, the way the kernel's filesystems are measured."""

    name = "aegisfs-loop"
    needs = ("losetup",)

    @classmethod
    def missing(cls):
        return AegisFS.missing.__func__(cls) or Target.missing.__func__(cls)

    def start(self):
        self.start_on(self.attach())


class AegisFSWriteback(AegisFS):
    """With the kernel's writeback cache: it accepts writes before the daemon has seen them."""

    name = "aegisfs-writeback"

    def start(self):
        self.start_on(self.image, "-o", "writeback")


class Ceiling(Target):
    name = "ceiling"
    binary = None
    options = None
    has_image = False

    @classmethod
    def missing(cls):
        return None if cls.binary else "ceiling"

    def start(self):
        extra = ["-o", self.options] if self.options else []
        self.start_daemon(self.binary, "-f", *extra, self.directory)


class Ext4(Target):
    """The kernel's own, on a loop device: no FUSE, but the same image on the same host."""

    name = "ext4"
    needs = ("mkfs.ext4", "losetup")

    def start(self):
        # Everything is initialised now: no kernel thread writes while others are measured. No
        # discard: it would punch holes into the image.
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
            self.image)
        run("mount", "-t", "ext4", self.attach(), self.directory)


class Btrfs(Target):
    """The kernel's own with copy-on-write and checksums, on a loop device."""

    name = "btrfs"
    needs = ("mkfs.btrfs", "losetup")

    def start(self):
        run("mkfs.btrfs", "-q", "-f", "-K", self.image)
        run("mount", "-t", "btrfs", "-o", "nodiscard", self.attach(), self.directory)


class Fuse2fs(Target):
    name = "fuse2fs"
    needs = ("mkfs.ext4", "fuse2fs")

    def start(self):
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", self.image)
        self.start_daemon("fuse2fs", self.image, self.directory, "-f", "-o", "rw")


class Ntfs3g(Target):
    name = "ntfs-3g"
    needs = ("mkntfs", "ntfs-3g")

    def start(self):
        run("mkntfs", "-F", "-Q", self.image)
        self.start_daemon("ntfs-3g", self.image, self.directory, "-o", "rw,no_detach,big_writes")


ALL = (Ceiling, AegisFS, AegisFSWriteback, AegisFSLoop, Ext4, Btrfs, Fuse2fs, Ntfs3g)
