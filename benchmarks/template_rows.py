"""The page of templates.py, from its rows: how each template is shared, and the sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .block import table
from .template_ways import UNSHARED, Sampling, costliest, way


def shared(row: dict) -> tuple[Sampling | None, str, str]:
    """A template's costliest sampling, its way, and why."""
    made = [Sampling(**one) for one in row["samplings"]]
    if not made:
        return None, "no sampler on", "its samplers are switched off as it is saved"
    worst = costliest(made)
    of, why = way(worst)
    others = sorted({way(one)[0] for one in made} - {of})
    return worst, of, "; ".join(filter(None, (why, f"another sampler: {', '.join(others)}" if others else "")))


def render(block: dict) -> str:
    head, *rows = block["rows"]
    found = [(row, *shared(row)) for row in rows]
    counted = Counter(of for _, _, of, _ in found)
    ways = ("conds", "rows", "tokens", "graph")
    total = sum(counted[of] for of in ways)
    sums = [
        (MEANT[of], counted[of], f"{counted[of] / len(rows):.0%}") for of in (*ways, "not told", "not", "no sampler on")
    ]
    sums.insert(4, ("**shared exactly**", total, f"**{total / len(rows):.0%}**"))
    whole = [row for row in rows if not row["invalid"]]
    unlike_rows = [row for row in rows if row["faults"]]
    left = Counter(why.split("; another")[0] for _, _, of, why in found if of in UNSHARED)
    invalid = [f"- {row['name']}: {short(row)}" for row in rows if row["invalid"]]
    beside = f", beside {head['others']} without (paid services, tools)" if head["others"] else ""
    parts = [
        f"{len(rows)} templates with a local sampler{beside}. {len(rows) - len(unlike_rows)} of them are the same "
        f"prompt node for node once turned, but for Hybridiff's nodes, and {len(whole)} are valid on the server before "
        "and after.",
        table(sums, [("how its costliest sampler is shared", lambda row: row[0]), ("templates", lambda row: row[1]),
                     ("share", lambda row: row[2])]),
        "### Not shared, or not told",
        table(left.most_common(), [("why", lambda row: row[0]), ("templates", lambda row: row[1])]),
        "### Not valid as the package has them",
        "\n".join(invalid) or "None.",
        "### Every template",
        table(found, COLUMNS),
    ]  # fmt: skip
    if unlike_rows:
        parts[1:1] = ["Faults: " + "; ".join(f"{row['name']}: {row['faults'][0]}" for row in unlike_rows)]
    return "\n\n".join(parts)


def short(row: dict) -> str:
    """What is wrong with a template before anything is turned."""
    return f"nodes of other packs ({', '.join(row['missing'])})" if row["missing"] else row["invalid"][0].rstrip(": ")


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def of_sampling(read: Callable[[Sampling], object]) -> Callable[[tuple], object]:
    return lambda found: "-" if found[1] is None else read(found[1])


MEANT = {
    "conds": "by conds (CFG above 1)",
    "rows": "by rows (a batch at CFG 1)",
    "tokens": "by tokens (one latent at CFG 1)",
    "graph": "by graph (code in the network), by conds or tokens",
    "not told": "not told: this family was not tried by tokens",
    "not": "not shared",
    "no sampler on": "no sampler is switched on",
}
COLUMNS = [
    ("template", lambda found: found[0]["name"]),
    ("sampler", of_sampling(lambda made: made.kind)),
    ("family", of_sampling(lambda made: made.family)),
    ("model", of_sampling(lambda made: made.files[0])),
    ("CFG", of_sampling(lambda made: number(made.cfg))),
    ("steps", of_sampling(lambda made: number(made.steps))),
    ("shared by", lambda found: found[2]),
    ("why", lambda found: found[3] or "-"),
]
