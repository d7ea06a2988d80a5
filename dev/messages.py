"""Write docs/MESSAGES.md: every line that a run can say, from hybridiff_core/lines; and the page's English phrases.

    python dev/messages.py [--check]

The phrases go from hybridiff_core/phrases.py to locales/en/main.json. --check writes nothing, and fails where a file is
not what would be written.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from hybridiff_core.lines import ALL, Group, Line  # noqa: E402
from hybridiff_core.phrases import PHRASES  # noqa: E402

PAGE = PACK / "docs" / "MESSAGES.md"
ENGLISH = PACK / "locales" / "en" / "main.json"
HEAD = """# What a run can say

Made by `python dev/messages.py` from hybridiff_core/lines. These are the lines in ComfyUI's log, under the node's
picture and in the report. What stands in <angle brackets> differs from run to run; often it is another line of this
page. A run goes on and finishes its picture, but where the table says that it stopped. A *worker* is the second ComfyUI
process that Hybridiff starts for another device; a *node* here is one of the graph's."""


def shown(line: Line) -> str:
    """The text as a reader can search for it."""
    text = re.sub(r"{(\w+)[^}]*}", r"<\1>", line.text)
    return f"`{text}`"


def page() -> str:
    parts = [HEAD]
    for group in Group:
        rows = [line for line in ALL.values() if line.group is group]
        table = ["| line | why | what to do |", "|---|---|---|"]
        table += [f"| {shown(line)} | {line.cause} | {line.way_out} |" for line in rows]
        parts.append(f"## {group.value}\n\n" + "\n".join(table))
    return "\n\n".join(parts) + "\n"


def english() -> str:
    """locales/en/main.json with the phrases as they are now."""
    texts = json.loads(ENGLISH.read_text(encoding="utf-8"))
    return json.dumps({**texts, "hybridiff": {"phrases": PHRASES}}, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, text in ((PAGE, page()), (ENGLISH, english())):
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.relative_to(PACK)} is not up to date; run python dev/messages.py")


if __name__ == "__main__":
    main()
