"""What measuring needs of the machine: commands, images, dropping caches, programs, and a folder
that leaves nothing behind.

- Invariant: `workspace` takes down all that was mounted or attached below it, also after a failure,
  an interrupt, or a filesystem that died.
- Invariant: nothing here asks a mounted filesystem whether it is mounted: its daemon may be dead.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(os.path.dirname(HERE))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class MeasureError(Exception):
    """Something could not be made, mounted or run; the message says what and why."""


class Unsupported(Exception):
    """This target has no such thing; that is no failure."""


def run(*command, timeout=3600, text=True):
    """Runs a command and returns its standard output; its failure is a MeasureError."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=text,
                            errors="replace" if text else None, timeout=timeout, check=False)
    if result.returncode != 0:
        said = result.stderr if text else result.stderr.decode(errors="replace")
        raise MeasureError(f"{' '.join(command)}: exit {result.returncode}: {said.strip()[-400:]}")
    return result.stdout


def timed(*command):
    """Seconds that a command takes."""
    start = time.monotonic()
    run(*command)
    return time.monotonic() - start


def drop_caches():
    """Writes everything back and drops what the kernel keeps of all files and names."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as knob:
        knob.write("3\n")


def missing_tool(tools):
    """The first of `tools` that the machine has not; None if it has all."""
    path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
    return next((tool for tool in tools if not shutil.which(tool, path=path)), None)


# ---- images and mounts ---------------------------------------------------------------------------


def is_written(image, size):
    """True if `image` has `size` bytes and no hole."""
    if not os.path.exists(image):
        return False
    status = os.stat(image)
    return status.st_size == size and status.st_blocks * 512 >= size


def require_written(image, size):
    """An image of `size` bytes, all of them written: the host's filesystem has no place to find
    and no extent to convert when the volume on it is flushed. One that is so already stays."""
    if not is_written(image, size):
        zeros = bytes(1 << 20)
        with open(image, "wb") as file:
            for _ in range(size >> 20):
                file.write(zeros)
            os.fsync(file.fileno())


def mounts_below(folder):
    """The mountpoints in `folder` or below it, the innermost first."""
    folder = os.path.realpath(folder)
    with open("/proc/self/mountinfo") as table:
        points = [line.split()[4].replace("\\040", " ") for line in table]
    return [point for point in reversed(points) if (point + "/").startswith(folder + "/")]


def is_mounted(directory):
    """True if something is mounted on `directory`."""
    wanted = os.path.join(os.path.realpath(os.path.dirname(directory)),
                          os.path.basename(directory))
    with open("/proc/self/mountinfo") as table:
        return any(line.split()[4].replace("\\040", " ") == wanted for line in table)


def attach_loop(image, direct=False):
    """A loop device over `image`: through the page cache of the host, as the image itself is used,
    or past it."""
    return run("losetup", "--find", "--show", f"--direct-io={'on' if direct else 'off'}",
               image).strip()


def release(folder):
    """Unmounts and detaches whatever lies in `folder`; never raises."""
    for _ in range(2):  # what was mounted twice
        for point in mounts_below(folder):
            subprocess.run(["umount", "-l", point], capture_output=True, check=False)
    listing = subprocess.run(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"],
                             capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        device, _, image = line.strip().partition(" ")
        if image.strip().startswith(os.path.realpath(folder) + "/"):
            subprocess.run(["losetup", "--detach", device], capture_output=True, check=False)


def stop(number, _frame):
    """Leaves by way of every cleanup; a second signal must not interrupt those."""
    for ignored in SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextlib.contextmanager
def workspace(prefix, parent=None, keep=None):
    """A folder for images and mountpoints, in `parent` (default: .build/bench). At the end, however
    that comes, nothing in it is mounted or attached, and it is gone. With `keep` it is that folder,
    and its files stay."""
    if os.geteuid() != 0:
        raise SystemExit(f"{prefix}: needs root, for mounts, loop devices and dropping caches")
    for number in SIGNALS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # whoever started this may hold them back
    parent = parent or os.path.join(PROJECT, ".build", "bench")
    os.makedirs(keep or parent, exist_ok=True)
    work = os.path.realpath(keep or tempfile.mkdtemp(prefix=prefix + "-", dir=parent))
    try:
        yield work
    except MeasureError as error:
        raise SystemExit(f"{prefix}: {error}") from None
    finally:
        release(work)
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


# ---- programs ------------------------------------------------------------------------------------


def compile_program(name, folder, *flags):
    """Builds NAME.c beside this file; the program's path."""
    program = os.path.join(folder, name)
    run(os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-o", program,
        os.path.join(HERE, name + ".c"), *flags, "-lpthread")
    return program


def compile_ceiling(folder):
    """The ceiling's path; None without libfuse3."""
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True,
                           text=True, check=False)
    return compile_program("ceiling", folder, *flags.stdout.split()) if flags.returncode == 0 else None


def find_aegisfs(given=None):
    """The command to measure: the one given, that in AEGISFS_BINARY, or the release build; None if
    there is none."""
    for path in (given, os.environ.get("AEGISFS_BINARY"),
                 os.path.join(PROJECT, ".build", "release", "aegisfs")):
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    return None


def processor_seconds(pid):
    """What a process has computed so far, to the nanosecond: the clock of clock_getcpuclockid(3)."""
    return time.clock_gettime(~pid << 3 | 2)


def peak_memory(pid):
    """The most bytes that a process had resident."""
    with open(f"/proc/{pid}/status") as file:
        return next((int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM")), 0)
