"""What a run returns, and what it raises when it proved nothing."""

import re
from dataclasses import dataclass


class Failed(Exception):
    """The run proved nothing: a task was lost or worked twice."""


@dataclass(frozen=True)
class Figure:
    """Something measured."""

    name: str
    value: float
    target: str = ""
    """Such as `≥ 35,000`; empty: none."""

    def met(self, value: float) -> bool | None:
        """Whether a value meets the target."""
        match = re.fullmatch(r"([≥≤]) ([\d,.]+).*", self.target)
        if not match:
            return None
        bound = float(match[2].replace(",", ""))
        return value >= bound if match[1] == "≥" else value <= bound
