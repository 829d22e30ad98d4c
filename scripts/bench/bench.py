"""Measures AegisFS beside a trivial in-memory FUSE filesystem (the ceiling), the kernel's ext4, xfs
and btrfs on loop devices, fuse2fs and ntfs-3g, all on images in one folder of one host filesystem.

All targets are mounted together on fresh volumes; then each workload runs on one target after the
other, in an order that rotates with the round, with everything written back and all caches dropped
before each run. What drifts on the machine thus meets all targets alike, and ratios are taken
inside a round. The tables give medians, spreads and ratios; the JSON files have every sample.

Needs root (mounts, loop devices, dropping caches). Everything that was set up is taken down at
the end, also after a failure or an interrupt.
"""

import argparse
import concurrent.futures
import contextlib
import fnmatch
import os
import platform
import sys
import time

sys.dont_write_bytecode = True  # the modules beside this file leave no cache in the source tree
import chart
import datapaths
import machine
import report
import targets
import volumes
import workloads


class Family:
    """Workloads that belong together: `stages` makes them from the sizes and the client programs,
    `references` are what ratios are taken to, the main one first, `tools` what they need."""

    def __init__(self, stages, references, tools=()):
        self.stages, self.references, self.tools = stages, references, tools


FAMILIES = {
    "metadata": Family(workloads.metadata, ("ceiling", "ext4")),
    "trees": Family(workloads.trees, ("ceiling", "ext4"), ("git",)),
    "data": Family(datapaths.data, ("ext4", "btrfs"), ("fio",)),
    "durable": Family(datapaths.durable, ("ext4", "ceiling")),
    "volume": Family(volumes.volume, ("btrfs", "ext4")),
    "growth": Family(volumes.growth, ("ext4",)),
}


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [kind.name for kind in targets.ALL]
    parser.add_argument("--families", default=",".join(FAMILIES), help="default: %(default)s")
    parser.add_argument("--workloads", metavar="PATTERNS",
                        help="only these, by name; what they build on runs too")
    parser.add_argument("--targets", help="of: " + ", ".join(names) + "; default: all but the last "
                        "three, or with --compare the two builds alone")
    parser.add_argument("--aegisfs", metavar="BINARY",
                        help="default: AEGISFS_BINARY, or the release build")
    parser.add_argument("--compare", nargs=2, metavar=("BEFORE", "AFTER"),
                        help="two builds of the command side by side; ratios are to the first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=20_000, help="of each metadata workload")
    parser.add_argument("--per-directory", type=int, default=1000)
    parser.add_argument("--clients", default="1,2,4,8", help="of the metadata workloads, a list")
    parser.add_argument("--mebibytes", type=int, default=1024, help="of the large file")
    parser.add_argument("--random-mebibytes", type=int, default=64, metavar="N",
                        help="read or written at random in one run")
    parser.add_argument("--sync-operations", type=int, default=300, metavar="N",
                        help="of each durable workload with one thread; more threads do more")
    parser.add_argument("--overwrite-mebibytes", type=int, default=256, metavar="N",
                        help="of the file with durable random overwrites")
    parser.add_argument("--tree", metavar="DIR", help="a real tree (default: generated)")
    parser.add_argument("--tree-files", type=int, default=20_000, help="of the generated tree")
    parser.add_argument("--growth-files", type=int, default=1_000_000, help="at most")
    parser.add_argument("--growth-gib", default="1,32,1024", help="of sparse volumes, a list")
    parser.add_argument("--image-gib", type=int, metavar="GIB",
                        help="default: 8, sparse, and more for large files; 2 for durable, "
                        "written in full")
    parser.add_argument("--work", metavar="DIR", help="for images; default: .build/bench")
    parser.add_argument("--ceiling-options", metavar="OPTIONS", help="such as writeback")
    parser.add_argument("--output", metavar="DIR", help="for FAMILY.json, .md and .svg")
    parser.add_argument("--smoke", action="store_true",
                        help="one tiny round on all targets at once, to see that all works")
    sizes = parser.parse_args()
    if sizes.smoke:
        sizes.rounds, sizes.files, sizes.per_directory = 1, 60, 30
        sizes.mebibytes, sizes.random_mebibytes, sizes.tree_files = 4, 1, 60
        sizes.sync_operations, sizes.overwrite_mebibytes = 16, 2
        sizes.growth_files, sizes.growth_gib = 60, "1024"
        sizes.clients, sizes.image_gib = "1,2", 1
        sizes.targets = sizes.targets or ",".join(names)
    for name in ("clients", "growth_gib"):
        setattr(sizes, name, [int(number) for number in getattr(sizes, name).split(",")])
    for name in sizes.families.split(","):
        if name not in FAMILIES:
            parser.error(f"no family {name}")
    return sizes


def image_bytes(sizes, family):
    """Of each target's image in this family; large files are written twice before space is free."""
    if sizes.image_gib:
        return sizes.image_gib << 30
    return 2 << 30 if family == "durable" else max(8 << 30, sizes.mebibytes * 3 << 20)


def choose_targets(sizes):
    """The kinds of target that this run can measure; says on stderr which it must leave out."""
    by_name = {kind.name: kind for kind in targets.ALL}
    names = sizes.targets.split(",") if sizes.targets else [
        kind.name for kind in targets.PLAIN if not sizes.compare]
    unknown = set(names) - set(by_name)
    if unknown:
        raise SystemExit(f"bench: no target {', '.join(sorted(unknown))}")
    wanted = [by_name[name] for name in names]
    if sizes.compare:
        builds = zip(("before", "after"), sizes.compare)
        kinds = [kind for kind in wanted if issubclass(kind, targets.AegisFS)] or [targets.AegisFS]
        others = [kind for kind in wanted if not issubclass(kind, targets.AegisFS)]
        wanted = [kind.variant(f"{kind.name} {when}", binary=os.path.abspath(binary))
                  for when, binary in builds for kind in kinds] + others
    for kind in wanted:
        if kind.missing():
            print(f"SKIPPED: {kind.name}: no {kind.missing()} here", file=sys.stderr)
    return [kind for kind in wanted if not kind.missing()]


def choose_workloads(patterns, stage):
    """The chosen workloads of a stage with those before them whose files they need."""
    if not patterns:
        return stage.workloads
    by_name = {workload.name: workload for workload in stage.workloads}
    chosen = {name for name in by_name for pattern in patterns.split(",")
              if fnmatch.fnmatchcase(name, pattern)}
    for name in list(chosen):
        chosen.update(by_name[name].needs)
    return [workload for workload in stage.workloads if workload.name in chosen]


def run_once(sizes, number, target, workload):
    """One workload on one target; its sample."""
    sample = {"round": number, "target": target.name, "workload": workload.name}
    try:
        workload.prepare(target)
        if not workload.warm and not sizes.smoke:
            # With everything before it on the device, no other target's writing counts.
            machine.drop_caches()
        before = target.counters()
        operations, seconds = workload.measure(target)
        target.settle()
        after = target.counters()
        sample.update(operations=operations, seconds=round(seconds, 6), counters={
            name: after[name] - before[name] for name in after if name in before})
        memory = target.peak_memory()
        if memory:
            sample["memory_bytes"] = memory
        result = f"{operations / max(seconds, 1e-9):12,.1f} {workload.unit}/s"
    except machine.Unsupported:
        sample["unsupported"] = True
        result = "has no such thing"
    except (machine.MeasureError, OSError, ValueError) as error:
        sample["error"] = str(error)
        result = f"FAILED: {error}"
    print(f"round {number + 1}  {workload.name:24} {target.name:18} {result}",
          file=sys.stderr, flush=True)
    return sample


def run_stage(sizes, number, kinds, stage, chosen, work):
    """One round on fresh volumes: every workload on every target. Returns the samples."""
    samples = []
    with contextlib.ExitStack() as stack:
        def open_target(kind):
            target = kind(work, stage.image_bytes, stage.written)
            stack.callback(target.close)
            target.open()
            return target

        # No time is taken in the smoke form, so there nobody waits for the others. The pool ends before
        # anything is closed, and its threads with what they have begun.
        with concurrent.futures.ThreadPoolExecutor(len(kinds)) as pool:
            each = pool.map if sizes.smoke else map
            ready = list(each(open_target, kinds))
            for workload in chosen:
                turn = number % len(ready)
                samples += each(lambda target: run_once(sizes, number, target, workload),
                                ready[turn:] + ready[:turn])
    return samples


def measure(sizes, name, kinds, programs, work):
    """All rounds of a family; the document that goes into its JSON file."""
    family = FAMILIES[name]
    sizes.image_bytes = image_bytes(sizes, name)
    stages = [(stage, choose_workloads(sizes.workloads, stage))
              for stage in family.stages(sizes, programs)]
    table = [workload for _, chosen in stages for workload in chosen]
    load = os.getloadavg()[0]
    samples = []
    for number in range(sizes.rounds):
        for stage, chosen in stages:
            if chosen:
                samples += run_stage(sizes, number, kinds, stage, chosen, work)
    names = [kind.name for kind in kinds]
    references = [names[0]] if sizes.compare else [
        reference for reference in family.references if reference in names] or names[:1]
    return {
        "output_version": {"command": "bench", "major": 2, "minor": 0},
        "family": name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count(), "load": load},
        "targets": names,
        "references": references,
        "settings": {key: value for key, value in vars(sizes).items()
                     if value is not None and key not in ("work", "output")},
        "summary": report.summarize(samples, names, table, references),
        "samples": samples,
    }


def publish(document, folder):
    """Prints the tables, and puts them, the samples and a chart into `folder`."""
    text = report.markdown(document)
    print(f"## {document['family']}\n\n{text}")
    if folder:
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, document["family"])
        with open(path + ".md", "w") as file:
            file.write(text)
        with open(path + ".json", "w") as file:
            file.write(report.lines_of_json(document))
        chart.draw(document, path + ".svg")


def main():
    sizes = parse_arguments()
    failures = []
    with machine.workspace("bench", sizes.work) as work:
        programs = {"folder": os.path.join(work, "programs")}
        os.mkdir(programs["folder"])
        for name in ("fsops", "syncops"):
            programs[name] = machine.compile_program(name, programs["folder"])
        targets.Ceiling.binary = machine.compile_ceiling(programs["folder"])
        targets.Ceiling.options = sizes.ceiling_options
        targets.AegisFS.binary = machine.find_aegisfs(sizes.aegisfs)
        kinds = choose_targets(sizes)
        if not kinds:
            raise SystemExit("bench: nothing to measure")
        if os.getloadavg()[0] > 0.5 and not sizes.smoke:
            print("bench: others use this machine: expect wide spreads", file=sys.stderr)
        for name in sizes.families.split(","):
            tool = machine.missing_tool(FAMILIES[name].tools)
            if tool:
                print(f"SKIPPED: {name}: no {tool} here", file=sys.stderr)
                continue
            document = measure(sizes, name, kinds, programs, work)
            publish(document, sizes.output)
            failures += [row for row in document["summary"] if "failures" in row]
    for row in failures:
        print(f"{row['workload']} on {row['target']}: {row['failures'][0]}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
