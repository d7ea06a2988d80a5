"""Whether a shared call is what this process makes of it alone: each way's first call beside the whole one.

A device that computes rightly is not enough (handshake.py): in some networks a prompt or an image comes out otherwise
where it is computed without those that ComfyUI computes with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import lines
from .call import Call, Parts
from .handshake import Handshake
from .setting import Setting
from .share import Deal, Way
from .team import Team
from .workers.exchange import Exchange


class Checking:
    """A run's comparisons of ways. A way that is not right is barred, by a line in the setting's `forms`.

    `name` is that of the calls' model, units and latent; `tolerance` how far prompts that are computed apart may be off
    beyond rounding, as a share of what the network puts out: 0 where the run is exact.
    """

    def __init__(self, setting: Setting, team: Team, handshake: Handshake):
        self.setting, self.team, self.handshake = setting, team, handshake
        self.name: object = None
        self.tolerance = 0.0
        self._again: set[object] = set()  # what is compared once more in the run's second half

    def kind(self, way: Way) -> tuple:
        """What is trusted, or barred, with this way: whole images need no more than one comparison for each name."""
        return (way, self.name, self.tolerance) if way is Way.CONDS else (way, self.name)

    def barred(self, way: Way) -> str | None:
        """Why calls are not shared in this way, in words for users; None where they may be."""
        return self.setting.forms.get(self.kind(way))

    def bar(self, line: str, key: object) -> None:
        """From here on it is not tried any more, in later runs neither."""
        self.setting.forms[key] = line
        self.team.report.note(line)

    def apart(self, exchanges: Sequence[Exchange], call: Call) -> bool:
        """Whether prompts that these workers compute apart from each other were found right."""
        return len(call.units) < 2 or self.handshake.trusts_way(self.kind(Way.CONDS), exchanges, call)

    def checked(self, deal: Deal, helpers: Sequence[Exchange], call: Call, step: int | None, parts: Parts) -> Parts:
        """`parts`; this process's own in their place where a new way to share makes something else of the call."""
        kind, conds = self.kind(deal.way), deal.way is Way.CONDS
        if self.team.compared and not conds:  # where one was lost, or compared, the next call shows it
            return parts
        again = kind in self._again and step is not None and step >= max(1, self.setting.steps // 2)
        if (self.apart(helpers, call) if conds else self.handshake.trusts_way(kind, helpers, call)) and not again:
            return parts
        self.team.compared = True
        own = self.team.plain(call, call.units)
        if not set(helpers) & set(self.team.exchanges):  # lost or left out: this process computed their part, apart
            return own
        theirs = call.merged(parts)
        off = max(self.handshake.off(call, theirs[b], of_branch) for b, of_branch in call.merged(own).items())
        if off <= max(*map(self.handshake.allowed, helpers), self.tolerance if conds else 0.0):
            self.handshake.passed_way(kind, helpers, call)
            if not conds:
                (self._again.discard if again else self._again.add)(kind)
            return parts
        if conds:
            self.bar(lines.PROMPTS_DIFFER(off=off), kind)
        elif deal.way is Way.ROWS:
            self.bar(lines.ROWS_DIFFER(off=off), kind)
        else:
            self.bar(lines.TOKENS_DIFFER(off=off), self.name)
        return own
