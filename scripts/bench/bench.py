"""Measures AegisFS beside a trivial in-memory FUSE filesystem (the ceiling), ext4 and btrfs on
loop devices, fuse2fs and ntfs-3g, all on images in one folder of one host filesystem.

All targets are mounted together on fresh volumes; then each workload runs on one target after the
other, in an order that rotates with the round, with all caches dropped before each run. What
drifts on the machine thus meets all targets alike, and ratios are taken inside a round. The
table gives medians, spreads and ratios; the JSON file has every sample.

There are two families of workloads. `small` has many small files, a tree, and a large file, on
sparse images. `fsync` makes each operation durable before the next, on images that are written in
full beforehand; its ratios are to ext4, and it counts what journals and loop devices did.

Needs root (mounts, loop devices, dropping caches). Everything that was set up is taken down at
the end, also after a failure or an interrupt.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the modules beside this file leave no cache in the source tree
import report
import targets
import workloads

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(os.path.dirname(HERE))


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__.split("\n\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [kind.name for kind in targets.ALL]
    parser.add_argument("--family", choices=("small", "fsync"), default="small")
    parser.add_argument("--targets", help="of: " + ", ".join(names) + "; default: those of the "
                        "family, which is all for fsync")
    parser.add_argument("--workloads", help="only these, by name; what they build on runs too")
    parser.add_argument("--aegisfs", metavar="BINARY",
                        help="default: AEGISFS_BINARY, or the release build")
    parser.add_argument("--compare", nargs=2, metavar=("BINARY_A", "BINARY_B"),
                        help="measure two builds side by side; ratios are to A")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=20_000, help="of each small workload")
    parser.add_argument("--per-directory", type=int, default=1000)
    parser.add_argument("--processes", default="1,2", help="for the small workloads, a list")
    parser.add_argument("--mebibytes", type=int, default=512, help="of the sequential workloads")
    parser.add_argument("--sync-operations", type=int, default=300, metavar="N",
                        help="of each fsync workload with one thread; more threads do more")
    parser.add_argument("--overwrite-mebibytes", type=int, default=256, metavar="N",
                        help="of the file with random overwrites")
    parser.add_argument("--tree", metavar="DIR", help="a real tree for tar (default: generated)")
    parser.add_argument("--tree-files", type=int, default=8000, help="of the generated tree")
    parser.add_argument("--image-size", type=int, metavar="GIB",
                        help="default: 8, sparse, or 2, written in full, for fsync")
    parser.add_argument("--work", metavar="DIR", help="for images; default: .build/bench")
    parser.add_argument("--ceiling-options", metavar="OPTIONS", help="such as writeback")
    parser.add_argument("--json", metavar="FILE", help="write all samples and the summary")
    parser.add_argument("--markdown", metavar="FILE", help="write the table")
    parser.add_argument("--smoke", action="store_true",
                        help="one tiny round, to see that everything works")
    sizes = parser.parse_args()
    if sizes.smoke:
        sizes.rounds, sizes.files, sizes.per_directory = 1, 400, 100
        sizes.mebibytes, sizes.tree_files, sizes.image_size = 8, 300, 1
        sizes.sync_operations, sizes.overwrite_mebibytes = 64, 16
    sizes.image_size = sizes.image_size or (2 if sizes.family == "fsync" else 8)
    if not sizes.targets:
        sizes.targets = ",".join(
            name for name in names
            if sizes.family == "fsync" or name not in ("aegisfs-loop", "btrfs"))
    sizes.processes = [int(number) for number in sizes.processes.split(",")]
    return sizes


def compile_programs(folder):
    """Builds the clients and the ceiling; returns the paths of fsops, syncops and the ceiling, whose
    is None without libfuse3."""
    compiler = os.environ.get("CC", "cc")
    fsops, syncops, ceiling = (os.path.join(folder, name)
                               for name in ("fsops", "syncops", "ceiling"))
    common = [compiler, "-O2", "-Wall", "-Wextra"]
    for program in (fsops, syncops):
        source = os.path.join(HERE, os.path.basename(program) + ".c")
        subprocess.run([*common, "-o", program, source, "-lpthread"], check=True)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True,
                           text=True, check=False)
    if flags.returncode != 0:
        return fsops, syncops, None
    source = os.path.join(HERE, "ceiling.c")
    subprocess.run([*common, "-o", ceiling, source, *flags.stdout.split(), "-lpthread"],
                   check=True)
    return fsops, syncops, ceiling


def find_aegisfs(sizes):
    for path in (sizes.aegisfs, os.environ.get("AEGISFS_BINARY"),
                 os.path.join(PROJECT, ".build", "release", "aegisfs")):
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    return None


def choose_targets(sizes):
    """The kinds of target that this run can measure; says on stderr which it must leave out."""
    if sizes.compare:
        builds = zip(("aegisfs-A", "aegisfs-B"), sizes.compare)
        wanted = [targets.Ceiling, *(targets.AegisFS.with_binary(*build) for build in builds)]
    else:
        by_name = {kind.name: kind for kind in targets.ALL}
        wanted = [by_name[name] for name in sizes.targets.split(",")]
    for kind in wanted:
        if kind.missing():
            print(f"SKIPPED: {kind.name}: no {kind.missing()} here", file=sys.stderr)
    return [kind for kind in wanted if not kind.missing()]


def choose_workloads(sizes, everything):
    """The chosen workloads with those before them whose files they need."""
    if not sizes.workloads:
        return everything
    chosen = set(sizes.workloads.split(","))
    unknown = chosen - {workload.name for workload in everything}
    if unknown:
        raise SystemExit(f"bench: no workload {', '.join(sorted(unknown))}")
    before = {"stat": ["create"], "readdir": ["create"], "rename": ["create"],
              "unlink": ["create"], "create4k": ["create", "unlink"], "rm -rf": ["tar"],
              "seqread": ["seqwrite"]}
    for name in list(chosen):
        kind, slash, processes = name.partition("/")
        chosen.update(needed + slash + processes for needed in before.get(kind, []))
    return [workload for workload in everything if workload.name in chosen]


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def counted(before, after):
    return {name: after[name] - before[name] for name in after if name in before}


def run_round(number, kinds, table, work, size, written=False):
    """One round on fresh volumes: every workload on every target. Returns the samples."""
    samples, ready = [], []
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            target = kind(work, size, written)
            stack.callback(target.close)
            target.open()
            ready.append(target)
        for workload in table:
            turn = number % len(ready)
            for target in ready[turn:] + ready[:turn]:
                sample = {"round": number, "target": target.name, "workload": workload.name}
                try:
                    # With everything before it on the device, no other target's writing counts.
                    workload.prepare(target.directory)
                    drop_caches()
                    before = target.counters() if written else {}
                    operations, seconds = workload.measure(target.directory)
                    sample.update(operations=operations, seconds=round(seconds, 6))
                    if written:
                        sample["counters"] = counted(before, target.counters())
                    result = f"{operations / max(seconds, 1e-9):12,.0f} {workload.unit}/s"
                except (workloads.WorkloadError, targets.TargetError, OSError) as error:
                    sample["error"] = str(error)
                    result = f"FAILED: {error}"
                samples.append(sample)
                print(f"round {number + 1}  {workload.name:15} {target.name:12} {result}",
                      file=sys.stderr, flush=True)
    return samples


def choose_references(sizes, names):
    """The targets that the others are put in proportion to, the main one first."""
    if sizes.compare:
        return ["aegisfs-A"]
    wanted = ["ext4", "ceiling"] if sizes.family == "fsync" else ["ceiling"]
    return [name for name in wanted if name in names] or names[:1]


def measure(sizes, work):
    """All rounds; returns the document that goes into the JSON file and the table."""
    programs = os.path.join(work, "programs")
    os.mkdir(programs)
    fsops, syncops, targets.Ceiling.binary = compile_programs(programs)
    targets.Ceiling.options = sizes.ceiling_options
    targets.AegisFS.binary = find_aegisfs(sizes)
    kinds = choose_targets(sizes)
    if not kinds:
        raise SystemExit("bench: nothing to measure")
    archive, members = os.path.join(work, "tree.tar"), 0
    if sizes.family == "small" and sizes.tree:
        members = workloads.archive_of(sizes.tree, archive)
    elif sizes.family == "small":
        members = workloads.generated_archive(archive, sizes.tree_files)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"bench: others use this machine (load {load:.1f}): expect wide spreads",
              file=sys.stderr)
    if sizes.family == "fsync":
        everything = workloads.durable_sequence(sizes, syncops)
    else:
        everything = workloads.sequence(sizes, fsops, archive, members)
    table = choose_workloads(sizes, everything)
    samples = []
    for number in range(sizes.rounds):
        samples += run_round(number, kinds, table, work, sizes.image_size << 30,
                             written=sizes.family == "fsync")
    names = [kind.name for kind in kinds]
    references = choose_references(sizes, names)
    rows = report.summarize(samples, names, table, references)
    document = {
        "output_version": {"command": "bench", "major": 1, "minor": 1},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count(), "load": load},
        "reference": references[0],
        "references": references,
        "settings": {key: value for key, value in vars(sizes).items() if value is not None},
        "archive_members": members,
        "summary": rows,
        "samples": samples,
    }
    return document, report.markdown(rows, names, table, references)


def stop(number, _frame):
    """Leaves by way of every cleanup; a second signal must not interrupt those."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    raise SystemExit(128 + number)


def catch_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def main():
    sizes = parse_arguments()
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, for mounts, loop devices and dropping caches")
    catch_signals()
    parent = sizes.work or os.path.join(PROJECT, ".build", "bench")
    os.makedirs(parent, exist_ok=True)
    work = tempfile.mkdtemp(prefix="run-", dir=parent)
    try:
        document, table = measure(sizes, work)
    except targets.TargetError as error:
        raise SystemExit(f"bench: {error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table)
    for path, text in ((sizes.markdown, table), (sizes.json, json.dumps(document, indent=1))):
        if path:
            with open(path, "w") as file:
                file.write(text)
    failures = [row for row in document["summary"] if "failures" in row]
    for row in failures:
        print(f"{row['workload']} on {row['target']}: {row['failures'][0]}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
