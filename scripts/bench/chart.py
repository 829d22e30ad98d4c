"""Draws the figures of a run with matplotlib, which is needed for nothing else: without it there is
no chart, and that is said."""

import re
import sys

try:
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 8,
                                "axes.prop_cycle": pyplot.cycler(color=pyplot.cm.tab20.colors)})
except ImportError:
    pyplot = None

GROWING = re.compile(r"(.+) at (\d+) (files|GiB)$")


def draw(document, path):
    if pyplot is None:
        print("SKIPPED: the chart: no python3-matplotlib here", file=sys.stderr)
        return
    rows = [row for row in document["summary"] if "rate_per_second" in row]
    if not rows:
        return
    growing = all(GROWING.match(row["workload"]) for row in rows)
    figure = draw_growth(rows) if growing else draw_ratios(rows, document)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def draw_ratios(rows, document):
    """For each workload a bar of each target: how fast it is, the reference being 1."""
    reference = document["references"][0]
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    names = [name for name in document["targets"] if name != reference]
    step = 0.8 / max(len(names), 1)
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.12 * (len(names) + 1.5) * len(workloads)))
    for index, name in enumerate(names):
        ratios = {row["workload"]: row["ratios"][reference]["median"] for row in rows
                  if row["target"] == name and reference in row["ratios"]}
        axes.barh([place + index * step for place, workload in enumerate(workloads)
                   if workload in ratios],
                  [ratios[workload] for workload in workloads if workload in ratios],
                  height=step, label=name)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks([place + 0.4 - step / 2 for place in range(len(workloads))], workloads)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel(f"speed, {reference} = 1")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=4, frameon=False)
    return figure


def draw_growth(rows):
    """A panel for each operation: seconds that one takes, over files or size, a line a target."""
    lines = {}
    for row in rows:
        kind, amount, unit = GROWING.match(row["workload"]).groups()
        lines.setdefault((kind, unit), {}).setdefault(row["target"], []).append(
            (int(amount), 1 / row["rate_per_second"]))
    columns = 3
    figure, panels = pyplot.subplots(-(-len(lines) // columns), columns, squeeze=False,
                                     figsize=(9, 2.6 * -(-len(lines) // columns)))
    for panel, ((kind, unit), targets) in zip(panels.flat, lines.items()):
        for name, points in targets.items():
            panel.plot(*zip(*sorted(points)), marker="o", markersize=3, label=name)
        panel.set(xscale="log", yscale="log", title=kind, xlabel=unit, ylabel="s")
        panel.grid(alpha=0.3)
    for panel in list(panels.flat)[len(lines):]:
        panel.axis("off")
    figure.tight_layout()
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="lower center", ncol=4,
                  frameon=False, bbox_to_anchor=(0.5, 1))
    return figure
