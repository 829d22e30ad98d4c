"""From raw samples to medians, spreads, ratios, and tables for people."""

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
    """The median over rounds of the ratio inside a round: what drifts with time cancels out."""
    ratios = [numerators[r] / denominators[r] for r in numerators if r in denominators]
    return (statistics.median(ratios), spread(ratios)) if ratios else None


def per_operation(samples, target, workload):
    """What the target counted, for each operation: medians over the rounds."""
    counted = [s for s in samples if s["target"] == target and s["workload"] == workload
               and s.get("counters")]
    names = sorted({name for s in counted for name in s["counters"]})
    return {name: statistics.median(s["counters"].get(name, 0) / s["operations"]
                                    for s in counted) for name in names}


def summarize(samples, targets, workloads, references):
    """One record for each workload and target that has samples. `ratio` is to the first of
    `references`, `ratios` has all."""
    rows = []
    for workload in workloads:
        for target in targets:
            rates = rates_by_round(samples, target, workload.name)
            failures = [s["error"] for s in samples if s["target"] == target
                        and s["workload"] == workload.name and "error" in s]
            row = {"workload": workload.name, "target": target, "unit": workload.unit}
            if rates:
                values = list(rates.values())
                ratios = {name: median_ratio(
                    rates, rates_by_round(samples, name, workload.name)) for name in references}
                ratio = ratios[references[0]]
                row.update(rate_per_second=statistics.median(values), spread=spread(values),
                           rounds=len(values), ratio=ratio[0] if ratio else None,
                           ratio_spread=ratio[1] if ratio else None)
                if len(references) > 1:
                    row["ratios"] = {name: {"median": value[0], "spread": value[1]}
                                     for name, value in ratios.items() if value}
                counted = per_operation(samples, target, workload.name)
                if counted:
                    row["per_operation"] = counted
            if failures:
                row["failures"] = failures
            rows.append(row)
    return rows


def human(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def markdown(rows, targets, workloads, references):
    """A table: a workload a line; for each target its rate ± spread, and its ratios to the
    references where they are others. Then, where targets count, what they did for an operation."""
    reference = references[0]
    lines = [f"Rates are medians in units a second, ± half the spread of the rounds; "
             f"× is the median ratio to {reference}"
             + "".join(f", / that to {name}" for name in references[1:]) + ".", ""]
    lines.append("| workload | unit | " + " | ".join(targets) + " |")
    lines.append("|---|---|" + "---:|" * len(targets))
    by_key = {(row["workload"], row["target"]): row for row in rows}
    for workload in workloads:
        cells = []
        for target in targets:
            row = by_key[workload.name, target]
            if "rate_per_second" not in row:
                cells.append("failed" if "failures" in row else "–")
                continue
            cell = f"{human(row['rate_per_second'])} ±{row['spread']:.0%}"
            if target != reference and row["ratio"] is not None:
                cell += f" **×{row['ratio']:.2f}**"
                if len(references) > 1:
                    cell += f" ±{row['ratio_spread']:.0%}"
            for name in references[1:]:
                if target != name and name in row.get("ratios", {}):
                    cell += f" /{row['ratios'][name]['median']:.2f}"
            cells.append(cell)
        lines.append(f"| {workload.name} | {workload.unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines + counts(rows)) + "\n"


def counts(rows):
    """A table of what the targets counted for each operation; no lines if none counted."""
    counted = [row for row in rows if row.get("per_operation")]
    names = sorted({name for row in counted for name in row["per_operation"]})
    if not names:
        return []
    lines = ["", "For each operation, medians over the rounds; a dash is what a target cannot tell.",
             "", "| workload | target | " + " | ".join(names) + " |",
             "|---|---|" + "---:|" * len(names)]
    for row in counted:
        values = row["per_operation"]
        lines.append(f"| {row['workload']} | {row['target']} | " + " | ".join(
            "–" if name not in values else f"{values[name]:,.0f}" if name.endswith(("bytes", "Bytes"))
            else f"{values[name]:.3f}" for name in names) + " |")
    return lines
