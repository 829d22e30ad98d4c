"""From raw samples to medians, spreads, ratios, and tables for people."""

import json
import statistics


def rate(sample):
    """Operations a second."""
    return sample["operations"] / max(sample["seconds"], 1e-9)


def rates_by_round(samples, target, workload):
    return {s["round"]: rate(s) for s in samples
            if s["target"] == target and s["workload"] == workload and "seconds" in s}


def spread(values):
    """Half the distance from the smallest to the largest value, relative to the median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def median_ratio(numerators, denominators):
    """The median over rounds of the ratio inside a round, and its spread: what drifts with time
    cancels out. None if the reference has no such figure."""
    ratios = [numerators[r] / denominators[r] for r in numerators if denominators.get(r)]
    return {"median": statistics.median(ratios), "spread": spread(ratios)} if ratios else None


def per_operation(samples, target, workload):
    """What the target counted, for each operation: medians over the rounds."""
    counted = [s for s in samples if s["target"] == target and s["workload"] == workload
               and s.get("counters") and s["operations"]]
    names = sorted({name for s in counted for name in s["counters"]})
    return {name: statistics.median(s["counters"].get(name, 0) / s["operations"]
                                    for s in counted) for name in names}


def summarize(samples, targets, workloads, references):
    """One record for each workload and target; `ratios` are to each of `references`."""
    rows = []
    for workload in workloads:
        for target in targets:
            own = [s for s in samples
                   if s["target"] == target and s["workload"] == workload.name]
            rates = rates_by_round(samples, target, workload.name)
            row = {"workload": workload.name, "target": target, "unit": workload.unit}
            if rates:
                values = list(rates.values())
                ratios = {name: median_ratio(rates, rates_by_round(samples, name, workload.name))
                          for name in references}
                row.update(rate_per_second=statistics.median(values), spread=spread(values),
                           rounds=len(values),
                           ratios={name: ratio for name, ratio in ratios.items() if ratio},
                           per_operation=per_operation(samples, target, workload.name))
                memory = [s["memory_bytes"] for s in own if "memory_bytes" in s]
                if memory:
                    row["memory_bytes"] = max(memory)
            failures = [s["error"] for s in own if "error" in s]
            if failures:
                row["failures"] = failures
            rows.append(row)
    return rows


def human(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.3f}"


def cell(row, references):
    if "rate_per_second" not in row:
        return "failed" if "failures" in row else "–"
    text = f"{human(row['rate_per_second'])} ±{row['spread']:.0%}"
    ratios = [f"{row['ratios'][name]['median']:.2f}" if name in row["ratios"] else "–"
              for name in references]
    return text if row["target"] == references[0] else f"{text} ({' / '.join(ratios)})"


def grid(rows, targets, to_text):
    """A line for each workload, a column for each target."""
    lines = ["| workload | unit | " + " | ".join(targets) + " |",
             "| --- | --- |" + " ---: |" * len(targets)]
    by_key = {(row["workload"], row["target"]): row for row in rows}
    for workload in dict.fromkeys(row["workload"] for row in rows):
        of_it = [by_key[workload, target] for target in targets]
        lines.append(f"| {workload} | {of_it[0]['unit']} | "
                     + " | ".join(to_text(row) for row in of_it) + " |")
    return lines


def markdown(document):
    """Two tables: rates and ratios; then what was counted for each operation."""
    rows, targets = document["summary"], document["targets"]
    references = document["references"]
    lines = ["Medians in units a second, ± half the spread of the rounds; in brackets the median ratio "
             "to " + ", then to ".join(references) + ".", ""]
    lines += grid(rows, targets, lambda row: cell(row, references))
    names = sorted({name for row in rows for name in row.get("per_operation", ())})
    if names:
        lines += ["", "For each operation, medians over the rounds; the daemon's memory is the most it "
                  "ever had.", "",
                  "| workload | target | " + " | ".join(names) + " | memory, MiB |",
                  "| --- | --- |" + " ---: |" * (len(names) + 1)]
    for row in rows:
        counts = row.get("per_operation")
        if counts:
            cells = [human(counts[name]) if name in counts else "–" for name in names]
            cells.append(f"{row['memory_bytes'] / 2**20:.0f}" if "memory_bytes" in row else "–")
            lines.append(f"| {row['workload']} | {row['target']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def lines_of_json(document):
    """The document with a line for each row and sample, so that versions can be compared."""
    def rows(values):
        return "[\n" + ",\n".join("  " + json.dumps(value) for value in values) + "\n ]"

    parts = [f' {json.dumps(key)}: '
             + (rows(value) if key in ("summary", "samples") else json.dumps(value))
             for key, value in document.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"
