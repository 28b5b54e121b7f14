# SPDX-License-Identifier: BSD-2-Clause
"""Workloads as data: sides that are measured in turns, what is shown of them, and goals."""
import dataclasses
import pathlib
import typing

Figures = typing.Dict[str, typing.Any]
HOSTPOOL, PEER, LIMIT = "hostpool", "peer", "limit"


@dataclasses.dataclass(frozen=True)
class Context:
    """One measurement: a fresh folder on the disk that counts, and how much to do."""
    folder: pathlib.Path
    scale: float = 1.0

    def count(self, full, least=1):
        """So many at full scale."""
        return max(int(full * self.scale), least)

    def seconds(self, full, least=1.0):
        return max(full * self.scale, least)


@dataclasses.dataclass(frozen=True)
class Show:
    """A line of the table: this figure of the side."""
    figure: str
    unit: str
    label: str = ""
    digits: int = 0


@dataclasses.dataclass(frozen=True)
class Side:
    """Something that is measured: run(context) gives figures by name.

    "notes" among the figures is a list of lines for people.
    """
    name: str
    durable: str  # in words: what is on the disk, and when
    run: typing.Callable[[Context], Figures]
    shows: typing.Sequence[Show]
    kind: str = HOSTPOOL
    packages: typing.Sequence[str] = ()
    one_cpu: bool = False
    once: bool = False  # in the first round only: it takes long


@dataclasses.dataclass(frozen=True)
class Goal:
    """own (side, figure) is to be at least (or most) `factor` times `against`.

    against: (side, figure); or a function of {side: figures} of a round; or None: factor itself.
    """
    own: typing.Tuple[str, str]
    against: typing.Any
    factor: float
    at_most: bool = False
    label: str = ""  # what it is held against, where against does not tell
    unit: str = ""

    def is_reached(self, value):
        return value <= self.factor if self.at_most else value >= self.factor

    def text(self):
        return f"{'<=' if self.at_most else '>='} {self.factor:g}{self.unit and ' ' + self.unit}"

    def against_text(self):
        if self.label:
            return self.label
        side, figure = self.against
        return f"its own {figure}" if side == self.own[0] else side


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    title: str
    sides: typing.Sequence[Side]
    goals: typing.Sequence[Goal] = ()
