"""What the user asked for: the plan, plain and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

PLAN_VERSION = 1
MODES = ("auto", "exact")


@dataclass(frozen=True)
class HybridPlan:
    """How one image is shared between devices.

    `mode`: "exact" runs every step whole on the devices there are, so the picture equals the
    sampler's on one device; "auto" is the best mode measured so far, today the same as "exact".
    `version` is the plan format, so that a plan made by another release is recognised.

    Raises ValueError naming the field, its value and the way out.
    """

    mode: str = "auto"
    version: int = PLAN_VERSION

    def __post_init__(self) -> None:
        if self.version != PLAN_VERSION:
            raise ValueError(
                f"the plan has version {self.version!r}, this Hybridiff reads version {PLAN_VERSION}; "
                "make the plan again with this release's Hybridiff Plan node"
            )
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; use one of {', '.join(MODES)}")

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> HybridPlan:
        """Read what `to_dict` wrote. Raises ValueError where it is something else."""
        if not isinstance(values, dict) or "version" not in values:
            raise ValueError(
                f"expected a plan, got {type(values).__name__}; connect the output of a Hybridiff Plan node"
            )
        cls(version=values["version"])
        unknown = sorted(str(key) for key in values if key not in {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"the plan has unknown fields {', '.join(unknown)}; make it again with this release")
        return cls(**values)
