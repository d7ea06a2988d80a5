"""The two tiers of tests, and the parts in which .ci/run goes through the second.

    python -m tests.tiers LOG.xml

rewrites durations.json, the seconds of each file's tests in either tier, from a log of `sh dev/test.sh --all
--junitxml LOG.xml`; a file's tier that is not in the log keeps its figure.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

DURATIONS = Path(__file__).with_name("durations.json")
PART_S = 24 * 60.0  # what a part may take by the figures; .ci/run ends it after 25 minutes, on slower machines too
UNKNOWN_S = 30.0  # of a file that durations.json does not have yet


def full(*values: object, id: str | None = None, marks: Iterable = ()):
    """A row of a parametrised test that is not for every change; `marks` are further ones."""
    return pytest.param(*values, id=id, marks=[pytest.mark.full, *marks])


def full_but(rows: Iterable, *every: object) -> list:
    """Rows of one value each, all of them `full` but those that are named."""
    rows = list(rows)
    unknown = [row for row in every if row not in rows]
    assert not unknown, f"no such rows: {unknown}"
    return [row if row in every else full(row) for row in rows]


def durations() -> dict[str, dict[str, float]]:
    """{file: {tier: seconds}}, the tiers being "every" and "full"."""
    return json.loads(DURATIONS.read_text())


def parts(files: Iterable[str], known: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Files of `full` tests in parts of about the same length, none over PART_S where that can be.

    The longest first, each to the part that has least: within a sixth of the best there is.
    """
    seconds = {file: known.get(file, {}).get("full", UNKNOWN_S) for file in files}
    count = max(1, -int(-sum(seconds.values()) // PART_S))
    found: list[list[str]] = [[] for _ in range(count)]
    for file in sorted(seconds, key=lambda file: (-seconds[file], file)):
        least = min(found, key=lambda part: sum(seconds[other] for other in part))
        least.append(file)
    return [sorted(part) for part in found]


def chosen(number: int, files: Iterable[str], known: Mapping[str, Mapping[str, float]]) -> tuple[int, list[list[str]]]:
    """The part that is `number`'s turn, and all parts. At its next turn a part begins in another place.

    A part that runs out of minutes so leaves out other tests each time.
    """
    found = parts(files, known)
    place = number % len(found)
    part = found[place]
    # multiples of the golden ratio: each lies in the largest gap between the places before
    first = int(number // len(found) * 0.618 % 1 * len(part))
    found[place] = part[first:] + part[:first]
    return place, found


def read_log(path: Path) -> dict[str, dict[str, float]]:
    """{file: {tier: seconds}} of the tests in a junit log that were not skipped."""
    found: dict[str, dict[str, float]] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        told = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
        if "file" in told and case.find("skipped") is None:
            tiers = found.setdefault(told["file"], {})
            tiers[told["tier"]] = tiers.get(told["tier"], 0.0) + float(case.get("time", 0.0))
    return found


def main(log: str) -> None:
    known = durations() if DURATIONS.is_file() else {}
    for file, tiers in read_log(Path(log)).items():
        known[file] = {**known.get(file, {}), **{tier: round(seconds) for tier, seconds in tiers.items()}}
    root = DURATIONS.parents[1]
    kept = {file: known[file] for file in sorted(known) if (root / file).is_file() and any(known[file].values())}
    lines = [f"  {json.dumps(file)}: {json.dumps(tiers)}" for file, tiers in kept.items()]
    DURATIONS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for tier in ("every", "full"):
        print(f"{tier}: {sum(tiers.get(tier, 0) for tiers in kept.values()) / 60:.1f} minutes")


if __name__ == "__main__":
    main(*sys.argv[1:])
