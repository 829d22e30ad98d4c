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


def summarize(samples, targets, workloads, reference):
    """One record for each workload and target that has samples."""
    rows = []
    for workload in workloads:
        for target in targets:
            rates = rates_by_round(samples, target, workload.name)
            failures = [s["error"] for s in samples if s["target"] == target
                        and s["workload"] == workload.name and "error" in s]
            row = {"workload": workload.name, "target": target, "unit": workload.unit}
            if rates:
                values = list(rates.values())
                ratio = median_ratio(rates, rates_by_round(samples, reference, workload.name))
                row.update(rate_per_second=statistics.median(values), spread=spread(values),
                           rounds=len(values), ratio=ratio[0] if ratio else None,
                           ratio_spread=ratio[1] if ratio else None)
            if failures:
                row["failures"] = failures
            rows.append(row)
    return rows


def human(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def markdown(rows, targets, workloads, reference):
    """A table: a workload a line; for each target its rate ± spread, and its ratio to the
    reference where it is another one."""
    lines = [f"Rates are medians in units a second, ± half the spread of the rounds; "
             f"× is the ratio to {reference}.", ""]
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
            cells.append(cell)
        lines.append(f"| {workload.name} | {workload.unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
