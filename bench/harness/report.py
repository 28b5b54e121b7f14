# SPDX-License-Identifier: BSD-2-Clause
"""The table for people, and the same as JSON."""
from harness import rounds

WIDE = 52


def number(value, digits=0):
    return f"{value:,.{digits}f}"


def shown(spread, digits):
    return (f"{number(spread.median, digits):>12} "
            f"{number(spread.lowest, digits) + ' .. ' + number(spread.highest, digits):>27}")


def goal_rows(workload, found):
    """What each goal came to."""
    rows = []
    for goal in workload.goals:
        spread = rounds.judge(goal, found)
        rows.append({
            "side": goal.own[0], "figure": goal.own[1], "against": goal.against_text(),
            "is_ratio": goal.against is not None,
            "goal": goal.text(), "factor": goal.factor, "at_most": goal.at_most,
            "median": spread and spread.median, "lowest": spread and spread.lowest,
            "highest": spread and spread.highest,
            "reached": None if spread is None else goal.is_reached(spread.median)})
    return rows


def side_rows(sides, found):
    rows = []
    for side in sides:
        for show in side.shows:
            spread = rounds.spread(found, side.name, show.figure)
            rows.append({
                "side": side.name, "figure": show.figure, "kind": side.kind, "unit": show.unit,
                "label": f"{side.name}{show.label and ', ' + show.label}", "durable": side.durable,
                "digits": show.digits, "noisy": rounds.is_noisy(found, side.name),
                "median": spread and spread.median, "lowest": spread and spread.lowest,
                "highest": spread and spread.highest})
    return rows


def result_of(workload, sides, found):
    """All of a workload, for the JSON and for the table."""
    return {"title": workload.title, "rows": side_rows(sides, found),
            "goals": goal_rows(workload, found), "runs": found}


def table_lines(name, result):
    yield f"\n{name}  {result['title']}"
    yield f"  {'':<{WIDE}} {'median':>12} {'lowest .. highest':>27} unit"
    for row in result["rows"]:
        if row["median"] is None:
            yield f"  {row['label']:<{WIDE}} {'failed':>12}"
            continue
        spread = rounds.Spread(row["median"], row["lowest"], row["highest"])
        yield (f"  {row['label']:<{WIDE}} {shown(spread, row['digits'])} {row['unit']}"
               f"{'  (noisy)' if row['noisy'] else ''}")
        yield from goal_lines(result["goals"], row)
    yield from durable_lines(result["rows"])
    yield from note_lines(result["runs"])


def goal_lines(goals, row):
    """Below the row they are about; those whose peer was not measured are left out."""
    for goal in goals:
        if (goal["side"], goal["figure"]) != (row["side"], row["figure"]) or goal["median"] is None:
            continue
        digits = 2 if goal["factor"] < 100 else 0
        figures = (f"{number(goal['median'], digits)} [{number(goal['lowest'], digits)} .. "
                   f"{number(goal['highest'], digits)}]")
        label = ("/ " if goal["is_ratio"] else "") + goal["against"]
        yield (f"      {label:<{WIDE - 4}} {figures:>37} goal {goal['goal']}: "
               f"{'reached' if goal['reached'] else 'NOT reached'}")


def durable_lines(rows):
    yield "  durable:"
    seen = []
    for row in rows:
        if row["side"] not in seen:
            seen.append(row["side"])
            yield f"    {row['side']:<{WIDE - 2}} {row['durable']}"


def note_lines(runs):
    for side, found in runs.items():
        for one in found:
            for note in one.get("notes", ()):
                yield f"  note, {side}: {note}"
            if "error" in one:
                yield f"  failed, {side}: {one['error']}"
