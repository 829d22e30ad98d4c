"""Measures how reading new files becomes slower as a volume ages: AegisFS, btrfs and ext4, each on two
images of one size. One of the two is filled to nine tenths and half emptied at random, round after
round, with the same files on every target; then both get the same new files, and these are read in
turns, aged and fresh, target after target, with all caches dropped before each reading.

What is printed is, for each target, the speed of reading and the ratio of aged to fresh: only the
ratios mean something on a machine that others use.

Needs root (mounts, loop devices, dropping caches). Everything that was set up is taken down.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import time

sys.dont_write_bytecode = True
import machine
import targets

PIECE = os.urandom(1 << 20)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="aging", description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--aegisfs", metavar="BINARY",
                        help="default: AEGISFS_BINARY, or the release build")
    parser.add_argument("--targets", default="aegisfs,aegisfs-loop,btrfs,ext4")
    parser.add_argument("--mebibytes", type=int, default=2048, help="of each volume")
    parser.add_argument("--rounds", type=int, default=20, help="of filling and deleting half")
    parser.add_argument("--new-mebibytes", type=int, default=128, help="of new files that are read")
    parser.add_argument("--readings", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", metavar="DIR", help="for images; default: .build/bench")
    parser.add_argument("--json", metavar="FILE", help="write all samples")
    return parser.parse_args()


def write(path, size):
    with open(path, "wb", buffering=0) as file:
        while size > 0:
            size -= file.write(PIECE[:min(size, len(PIECE))])


def used_share(directory, whole):
    return 1 - os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize / whole


def age(directory, rounds, seed):
    """Fills to nine tenths and deletes half, over and over. Sizes are spread evenly over their
    logarithms, from 4 KiB to 4 MiB."""
    chance = random.Random(seed)
    status = os.statvfs(directory)
    whole = status.f_bavail * status.f_frsize
    names, count = [], 0
    for _ in range(rounds):
        while used_share(directory, whole) < 0.9:
            folder = os.path.join(directory, f"d{count % 20}")
            os.makedirs(folder, exist_ok=True)
            name = os.path.join(folder, f"f{count}")
            try:
                write(name, int(2 ** chance.uniform(12, 22)))
            except OSError:
                # A filesystem that frees late is full earlier than it says.
                os.unlink(name)
                os.sync()
                break
            names.append(name)
            count += 1
        chance.shuffle(names)
        for name in names[len(names) // 2:]:
            os.unlink(name)
        del names[len(names) // 2:]
        os.sync()


def write_new(directory, mebibytes):
    for number in range(8):
        write(os.path.join(directory, f"new{number}"), (mebibytes << 20) // 8)
    os.sync()


def read_new(directory):
    """Seconds to read all new files, caches dropped."""
    machine.drop_caches()
    buffer = bytearray(1 << 20)
    start = time.monotonic()
    for number in range(8):
        with open(os.path.join(directory, f"new{number}"), "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.monotonic() - start


def measure(arguments, work):
    targets.AegisFS.binary = machine.find_aegisfs(arguments.aegisfs)
    by_name = {kind.name: kind for kind in targets.ALL}
    kinds = [by_name[name] for name in arguments.targets.split(",")]
    for kind in kinds:
        if kind.missing():
            raise SystemExit(f"aging: {kind.name}: no {kind.missing()} here")
    samples = {kind.name: {"fresh": [], "aged": []} for kind in kinds}
    with contextlib.ExitStack() as stack:
        volumes = []
        for kind in kinds:
            for state in ("fresh", "aged"):
                # Written in full: no target finds holes in the host's filesystem to fill.
                target = kind(os.path.join(work, state), arguments.mebibytes << 20, True)
                stack.callback(target.close)
                target.open()
                if state == "aged":
                    print(f"{kind.name}: ageing", file=sys.stderr, flush=True)
                    age(target.directory, arguments.rounds, arguments.seed)
                write_new(target.directory, arguments.new_mebibytes)
                volumes.append((kind.name, state, target))
        for number in range(arguments.readings):
            turn = 2 * number % len(volumes)
            for name, state, target in volumes[turn:] + volumes[:turn]:
                samples[name][state].append(read_new(target.directory))
    return samples


def table(samples, mebibytes):
    lines = ["| target | fresh, MiB/s | aged, MiB/s | aged to fresh | spread |",
             "| --- | ---: | ---: | ---: | ---: |"]
    for name, states in samples.items():
        ratios = sorted(fresh / aged for fresh, aged in zip(states["fresh"], states["aged"]))
        speed = {state: mebibytes / statistics.median(seconds)
                 for state, seconds in states.items()}
        lines.append(f"| {name} | {speed['fresh']:,.0f} | {speed['aged']:,.0f} "
                     f"| {statistics.median(ratios):.2f} | {ratios[0]:.2f}–{ratios[-1]:.2f} |")
    return "\n".join(lines)


def main():
    arguments = parse_arguments()
    with machine.workspace("aging", arguments.work) as work:
        samples = measure(arguments, work)
    print(table(samples, arguments.new_mebibytes))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(samples, file, indent=1)


if __name__ == "__main__":
    main()
