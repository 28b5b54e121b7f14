# SPDX-License-Identifier: BSD-2-Clause
"""Plots as SVG, by matplotlib."""


def pyplot():
    import matplotlib  # takes a while, and is needed for plots alone
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "hostpool"  # the same figures make the same file
    import matplotlib.pyplot
    return matplotlib.pyplot


def goal_bars(results):
    """(label, value, lowest, highest, reached) of each goal, as multiples of the goal: more is
    better."""
    for name, result in results.items():
        for goal in result["goals"]:
            if not goal["median"] or not goal["factor"]:
                continue
            values = [goal[key] / goal["factor"] for key in ("median", "lowest", "highest")]
            if goal["at_most"]:
                values = [1 / value if value else float("inf")
                          for value in (values[0], values[2], values[1])]
            yield (f"{name} {goal['side']}, {goal['figure']} / {goal['against']}", *values,
                   goal["reached"])


def save_goals(results, path):
    """How far each goal is reached, on a logarithmic axis; the line at 1 is the goal."""
    plt = pyplot()
    bars = list(goal_bars(results))[::-1]
    figure, axes = plt.subplots(figsize=(11, 1.2 + 0.32 * max(len(bars), 1)))
    for at, (_, value, lowest, highest, reached) in enumerate(bars):
        axes.barh(at, value, color="#2f7d4f" if reached else "#b4452f", height=0.7)
        axes.plot([lowest, highest], [at, at], color="black", linewidth=1)
    axes.set_yticks(range(len(bars)), [bar[0] for bar in bars], fontsize=8)
    if bars:
        axes.set_xscale("log")
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("times the goal (1 and more: reached); the thin line is lowest .. highest")
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def save_curves(curves, path):
    """curves: [(title, label of x, label of y, {series: [(x, y)]})], one below the other."""
    plt = pyplot()
    figure, rows = plt.subplots(len(curves), figsize=(9, 4.2 * len(curves)), squeeze=False)
    for (title, x_label, y_label, lines), (axes,) in zip(curves, rows):
        for name, points in lines.items():
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
        axes.set(title=title, xlabel=x_label, ylabel=y_label, xscale="log", yscale="log")
        axes.grid(which="both", linewidth=0.3)
        if lines:
            axes.legend()
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
