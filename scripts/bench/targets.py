"""The filesystems that are measured: how each is made, mounted, counted and taken down.

A target owns everything it starts (image, loop device, mount, daemon) and gives all of it back
in `close`, whatever state it is in. Daemons are started in the foreground as children of the
driver, or say their process themselves, so that they are known by it and never by a name.
"""

import json
import os
import shutil
import subprocess
import time

from machine import (MeasureError, Unsupported, attach_loop, is_mounted, is_written, missing_tool,
                     peak_memory, processor_seconds, require_written, run)

MOUNT_TIMEOUT_S = 30
UNMOUNT_TIMEOUT_S = 300


class Target:
    """One filesystem on an image of `size` bytes in the folder `work`.

    A sparse image lives as long as the target. One that is written in full stays for the next
    target of this name, since writing it takes longer than measuring; so does one that is named.
    """

    name = "?"
    needs = ()
    has_image = True
    direct = False  # whether its loop device goes past the host's page cache

    def __init__(self, work, size, written=False, image=None):
        self.folder = os.path.join(work, self.name)
        if image:
            self.folder = os.path.join(work, os.path.basename(image) + ".mounted")
        elif written:
            os.makedirs(os.path.join(work, "images"), exist_ok=True)
            image = os.path.join(work, "images", self.name)
        self.image = image or os.path.join(self.folder, "image")
        self.directory = os.path.join(self.folder, "mount")
        self.size = size
        self.written = written
        self.daemon = self.loop = None

    @classmethod
    def variant(cls, name, **attributes):
        """A kind of target with a name of its own: another binary, other options."""
        return type(name, (cls,), {"name": name, **attributes})

    @classmethod
    def missing(cls):
        """The first program that this target needs and the machine has not; None if complete."""
        return missing_tool(cls.needs)

    # What each filesystem defines.

    def format(self):
        """Makes an empty volume on the image, and discards nothing: that would punch holes."""

    def attach(self):
        """Mounts the volume on the directory."""
        raise NotImplementedError

    def check(self):
        """Looks for damage on the volume, which is not mounted."""
        raise Unsupported

    def create_snapshot(self, name):
        raise Unsupported

    def delete_snapshots(self, names):
        raise Unsupported

    def scrub(self):
        """Reads and verifies all of the mounted volume."""
        raise Unsupported

    # What they have in common.

    def open(self):
        """A fresh volume, mounted."""
        self.make()
        self.mount()
        if self.written and self.has_image and not is_written(self.image, self.size):
            raise MeasureError(f"{self.name}: making the volume punched holes into its image")

    def make(self):
        """The image, and an empty volume on it."""
        os.makedirs(self.directory, exist_ok=True)
        if self.has_image:
            if self.written:
                require_written(self.image, self.size)
            else:
                with open(self.image, "wb") as image:
                    image.truncate(self.size)
        self.format()

    def mount(self):
        os.makedirs(self.directory, exist_ok=True)
        self.attach()
        if not is_mounted(self.directory):
            raise MeasureError(f"{self.name}: not mounted")

    def unmount(self):
        """Returns when nobody uses the image any more."""
        run("umount", self.directory, timeout=UNMOUNT_TIMEOUT_S)
        self.wait_for_daemon()

    def settle(self):
        """Writes back what was changed here, and nobody else's."""
        run("sync", "-f", self.directory)

    def device(self):
        """A loop device over the image, which stays until the end."""
        self.loop = self.loop or attach_loop(self.image, self.direct)
        return self.loop

    def pid(self):
        """The process that serves the mount; None if the kernel does."""
        return self.daemon.pid if self.daemon else None

    def counters(self):
        """Counts that grow while the target works: what its daemon, journal and loop device did."""
        counts = {}
        if self.loop:
            with open(f"/sys/block/{os.path.basename(self.loop)}/stat") as file:
                fields = [int(field) for field in file.read().split()]
            counts.update(device_reads=fields[0], device_writes=fields[4],
                          device_bytes=fields[6] * 512)
            if len(fields) > 15:
                counts["device_flushes"] = fields[15]
        if self.pid():
            counts["cpu_microseconds"] = processor_seconds(self.pid()) * 1e6
        return counts

    def peak_memory(self):
        """The most bytes that the daemon had resident; None without one."""
        return peak_memory(self.pid()) if self.pid() else None

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
                    raise MeasureError(f"{self.name}: no mount: {log.read().strip()[-400:]}")
            time.sleep(0.005)

    def wait_for_daemon(self):
        if self.daemon:
            try:
                self.daemon.wait(UNMOUNT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
            self.daemon = None

    def close(self):
        """Takes everything down; never raises, so that the next target is taken down too."""
        for attempt in range(5):
            if not is_mounted(self.directory):
                break
            try:
                self.unmount()
            except (MeasureError, subprocess.TimeoutExpired, OSError):
                time.sleep(0.2 * (attempt + 1))
        if is_mounted(self.directory):
            subprocess.run(["umount", "-l", self.directory], capture_output=True, check=False)
        self.wait_for_daemon()
        if self.loop:
            subprocess.run(["losetup", "-d", self.loop], capture_output=True, check=False)
            self.loop = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self):
        """Unmounts, and gives back the loop device; the image stays."""
        self.unmount()
        if self.loop:
            run("losetup", "--detach", self.loop)
            self.loop = None


# ---- AegisFS -------------------------------------------------------------------------------------


class AegisFS(Target):
    """On the image itself."""

    name = "aegisfs"
    binary = None
    options = ()
    daemon_pid = None

    @classmethod
    def missing(cls):
        return missing_tool(cls.needs) if cls.binary and os.access(cls.binary, os.X_OK) else "aegisfs"

    def volume(self):
        return self.image

    def verb(self, *words):
        return run(self.binary, *words)

    def format(self):
        self.verb("format", "--force", "--quiet", self.volume())

    def attach(self):
        options = ["-o", ",".join(self.options)] if self.options else []
        self.verb("mount", *options, self.volume(), self.directory)
        self.daemon_pid = None

    def unmount(self):
        self.verb("umount", self.directory)

    def settle(self):
        super().settle()
        self.verb("sync", "-q", self.directory)

    def check(self):
        self.verb("check", "-q", self.volume())

    def create_snapshot(self, name):
        self.verb("snapshot", "create", self.directory, name)

    def delete_snapshots(self, names):
        self.verb("snapshot", "delete", self.directory, *names, "--yes", "-q")

    def await_deletion(self):
        """Until the space of deleted snapshots is free."""
        while '"is_sweeping":true' in self.verb("snapshot", "stats", self.directory, "--json"):
            time.sleep(0.02)

    def scrub(self):
        return json.loads(self.verb("scrub", "--json", "--progress", "none", self.directory))["scrub"]

    def status(self):
        return json.loads(self.verb("status", "--json", self.directory))

    def pid(self):
        if not self.daemon_pid and is_mounted(self.directory):
            self.daemon_pid = self.status()["pid"]
        return self.daemon_pid

    def counters(self):
        status = self.status()
        counts = {**super().counters(), "checkpoints": status["checkpoints"]}
        journal = status.get("journal") or {}
        for name in ("flushes", "records", "seals", "written_bytes"):
            if name in journal:
                counts[f"journal_{name}"] = journal[name]
        return counts


class AegisFSLoop(AegisFS):
    """On a loop device, the way the kernel's filesystems are measured."""

    name = "aegisfs-loop"
    needs = ("losetup",)

    def volume(self):
        return self.device()


# ---- others --------------------------------------------------------------------------------------


class Ceiling(Target):
    """The price of the protocol: a trivial filesystem in memory."""

    name = "ceiling"
    binary = None
    options = None
    has_image = False

    @classmethod
    def missing(cls):
        return None if cls.binary else "libfuse3-dev"

    def attach(self):
        extra = ["-o", self.options] if self.options else []
        self.start_daemon(self.binary, "-f", *extra, self.directory)


class KernelTarget(Target):
    """One of the kernel's own, on a loop device: no FUSE, but the same image on the same host."""

    options = "defaults"

    def attach(self):
        run("mount", "-o", self.options, self.device(), self.directory)


class Ext4(KernelTarget):
    name = "ext4"
    needs = ("mkfs.ext4", "e2fsck", "losetup")

    def format(self):
        # Everything is initialised now: no kernel thread writes while others are measured. On a very
        # large volume that would be the measurement.
        lazy = int(self.size > 256 << 30)
        run("mkfs.ext4", "-q", "-F", "-E",
            f"lazy_itable_init={lazy},lazy_journal_init={lazy},nodiscard", self.image)

    def check(self):
        run("e2fsck", "-f", "-n", self.image)


class Xfs(KernelTarget):
    name = "xfs"
    needs = ("mkfs.xfs", "xfs_repair", "losetup")

    def format(self):
        run("mkfs.xfs", "-q", "-f", "-K", self.image)

    def check(self):
        run("xfs_repair", "-n", self.image)


class Btrfs(KernelTarget):
    """The kernel's own with copy-on-write and checksums."""

    name = "btrfs"
    needs = ("mkfs.btrfs", "btrfs", "losetup")
    options = "nodiscard"

    def format(self):
        run("mkfs.btrfs", "-q", "-f", "-K", self.image)

    def check(self):
        run("btrfs", "check", self.image)

    def snapshot_path(self, name):
        return os.path.join(self.directory, ".snapshots", name)

    def create_snapshot(self, name):
        os.makedirs(self.snapshot_path(""), exist_ok=True)
        run("btrfs", "subvolume", "snapshot", "-r", self.directory, self.snapshot_path(name))

    def delete_snapshots(self, names):
        run("btrfs", "subvolume", "delete", *map(self.snapshot_path, names))

    def await_deletion(self):
        """Until the space of deleted snapshots is free."""
        run("btrfs", "subvolume", "sync", self.directory)

    def scrub(self):
        return run("btrfs", "scrub", "start", "-B", "-R", self.directory)


class Fuse2fs(Ext4):
    """ext4 in a FUSE daemon."""

    name = "fuse2fs"
    needs = ("mkfs.ext4", "e2fsck", "fuse2fs")

    def attach(self):
        self.start_daemon("fuse2fs", self.image, self.directory, "-f", "-o", "rw")


class Ntfs3g(Target):
    name = "ntfs-3g"
    needs = ("mkntfs", "ntfs-3g")

    def format(self):
        run("mkntfs", "-F", "-Q", self.image)

    def attach(self):
        self.start_daemon("ntfs-3g", self.image, self.directory, "-o", "rw,no_detach,big_writes")


PLAIN = (Ceiling, AegisFS, AegisFSLoop, Ext4, Xfs, Btrfs, Fuse2fs, Ntfs3g)
ALL = (*PLAIN, AegisFS.variant("aegisfs-writeback", options=("writeback",)),
       AegisFS.variant("aegisfs-zstd", options=("compress=zstd:1",)),
       Btrfs.variant("btrfs-zstd", options="nodiscard,compress=zstd:1"))
