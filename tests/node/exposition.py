"""Prometheus' text format 0.0.4, read as strictly as it is meant: what other readers forgive is a complaint here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL: Final = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE: Final = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")
_HELP: Final = re.compile(rf"# HELP ({_NAME}) ((?:[^\\\n]|\\[\\n])+)")
_TYPE: Final = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|histogram)")
_ENDS: Final = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}

Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One line."""

    name: str
    labels: Labels
    value: float


class Family(NamedTuple):
    """What stands together under one name."""

    name: str
    kind: str
    samples: list[Sample]


class Exposition(NamedTuple):
    """All of a scrape."""

    families: list[Family]
    complaints: list[str]

    def counted(self) -> dict[tuple[str, Labels], float]:
        """Every series that may only rise."""
        rising = [family for family in self.families if family.kind != "gauge"]
        return {(name, labels): value for family in rising for name, labels, value in family.samples}

    def labels(self) -> set[str]:
        """Every label's name."""
        return {label for family in self.families for sample in family.samples for label, _ in sample.labels}


def read(text: str) -> Exposition:
    """What it holds, and everything that is wrong with it."""
    found = Exposition([], [])
    if not text.endswith("\n"):
        found.complaints.append("the last line does not end")
    help_of = ""
    for number, line in enumerate(text.split("\n")[:-1], 1):
        if told := _HELP.fullmatch(line):
            help_of = told[1]
        elif told := _TYPE.fullmatch(line):
            if told[1] != help_of:
                found.complaints.append(f"line {number}: a type without its help right before it")
            found.families.append(Family(told[1], told[2], []))
        elif told := _SAMPLE.fullmatch(line):
            found.complaints.extend(f"line {number}: {why}" for why in _taken(found, told))
        else:
            found.complaints.append(f"line {number}: not a line of this format: {line!r}")
    names = [family.name for family in found.families]
    found.complaints.extend(f"{name} comes twice" for name in sorted({each for each in names if names.count(each) > 1}))
    for family in found.families:
        found.complaints.extend(f"{family.name}: {why}" for why in _wrong_with(family))
    return found


def _taken(found: Exposition, told: re.Match[str]) -> Iterator[str]:
    name, labels = told[1], _labels(told[2] or "")
    family = found.families[-1] if found.families else None
    if family is None or name not in [f"{family.name}{end}" for end in _ENDS[family.kind]]:
        yield f"{name} stands under another family"
        return
    if len({label for label, _ in labels}) < len(labels):
        yield "a label comes twice"
    try:
        value = float(told[3])
    except ValueError:
        yield f"{told[3]!r} is no number"
        return
    family.samples.append(Sample(name, labels, value))


def _labels(text: str) -> Labels:
    parts = re.findall(_LABEL, text)
    return tuple(sorted((name, value[1:-1]) for name, _, value in (part.partition("=") for part in parts)))


def _wrong_with(family: Family) -> Iterator[str]:
    series = [sample[:2] for sample in family.samples]
    if len(set(series)) < len(series):
        yield "a series comes twice"
    if any(not math.isfinite(sample.value) for sample in family.samples):
        yield "a value that nobody can add up"
    if family.kind == "counter" and not family.name.endswith("_total"):
        yield "a counter's name ends in _total"
    if family.kind != "gauge" and any(sample.value < 0 for sample in family.samples):
        yield "a count below nothing"
    if family.kind == "histogram":
        yield from _wrong_with_buckets(family)


def _wrong_with_buckets(family: Family) -> Iterator[str]:
    by_labels: dict[Labels, dict[str, list[tuple[float, float]]]] = {}
    for name, labels, value in family.samples:
        bound = dict(labels).get("le")
        others = tuple(pair for pair in labels if pair[0] != "le")
        kinds = by_labels.setdefault(others, {})
        kinds.setdefault(name.removeprefix(family.name), []).append((float(bound or 0), value))
    for kinds in by_labels.values():
        buckets, counts = kinds.get("_bucket", []), kinds.get("_count", [])
        if not buckets or len(counts) != 1 or len(kinds.get("_sum", [])) != 1:
            yield "buckets, count and sum belong together"
        elif buckets != sorted(buckets) or [value for _, value in buckets] != sorted(value for _, value in buckets):
            yield "buckets are cumulative, and in order"
        elif buckets[-1] != (math.inf, counts[0][1]):
            yield "the last bucket has all"
