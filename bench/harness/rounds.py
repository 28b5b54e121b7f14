# SPDX-License-Identifier: BSD-2-Clause
"""Runs the sides of a workload in turns, and pairs what was measured in the same round."""
import dataclasses
import shutil
import statistics
import subprocess
import time

from harness import machine, model, programs


def measure(side, folder, scale):
    """Figures of one run of one side, with how quiet the machine was."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begin_s = time.monotonic()
    try:
        with machine.Quiet() as quiet, machine.one_cpu(side.one_cpu):
            figures = dict(side.run(model.Context(folder, scale)))
    except (programs.Failed, subprocess.SubprocessError, OSError) as error:
        if side.kind == model.HOSTPOOL:
            raise
        return {"error": str(error)[-500:]}  # a peer that failed is no reason to stop
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - begin_s
    figures.update(wall_s=round(seconds, 2), others_cpu_s=quiet.others_cpu_s,
                   steal_s=quiet.steal_s)
    return figures


def run(workload, sides, count, folder, scale, say):
    """{side: [figures of each round]}. Who begins changes from round to round."""
    found = {side.name: [] for side in sides}
    for number in range(count):
        start = number % len(sides)
        for side in (*sides[start:], *sides[:start]):
            if side.once and number > 0:
                continue
            say(f"{workload.name} round {number + 1} of {count}: {side.name}")
            found[side.name].append(measure(side, folder / "now", scale))
    return found


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of what was measured; of ratios as well."""
    median: float
    lowest: float
    highest: float

    @staticmethod
    def of(values):
        return Spread(statistics.median(values), min(values), max(values)) if values else None


def spread(found, side, figure):
    return Spread.of([one[figure] for one in found.get(side, ()) if figure in one])


def is_noisy(found, side):
    """Did others take a fifth of a CPU or more in most of its runs?"""
    runs = [one for one in found.get(side, ()) if "wall_s" in one]
    noisy = [one["others_cpu_s"] + one["steal_s"] > machine.NOISY_SHARE * one["wall_s"]
             for one in runs]
    return sum(noisy) * 2 > len(noisy)


def value_against(goal, figures):
    """The goal's value in one round ({side: figures}): a ratio, or the figure itself."""
    side, figure = goal.own
    own = figures.get(side, {}).get(figure)
    if own is None or goal.against is None:
        return own
    if callable(goal.against):
        other = goal.against(figures)
    else:
        other = figures.get(goal.against[0], {}).get(goal.against[1])
    return own / other if other else None


def judge(goal, found):
    """Spread of the goal's value over the rounds, or None where something was not measured.

    Sides that run once are paired with the first round.
    """
    values = []
    for number in range(max(map(len, found.values()), default=0)):
        figures = {side: runs[min(number, len(runs) - 1)]
                   for side, runs in found.items() if runs and (len(runs) > number or number > 0)}
        value = value_against(goal, figures)
        if value is not None:
            values.append(value)
    return Spread.of(values)
