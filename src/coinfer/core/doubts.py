"""Doubts: how far an estimate is taken back that nothing corrects, as nobody runs what it is of.

After a time in which all was slow, a processor may look slower than it is, and will not be chosen
again; a frame may look as if it could never be in time, and is always dropped. So such estimates go
back to what was measured, until one is tried. Where that shows that the estimate was right, the
next step is half as long: what lasts is tried ever more seldom.
"""

from __future__ import annotations

__all__ = ["LEAST", "NEAR", "STEP", "Doubts"]

STEP = 0.05
"""Of the way back to what was measured, at first."""

LEAST = STEP / 32
"""The shortest step: whatever changes is found out some time."""

NEAR = 1.01
"""What is at most so many times what was measured is as it was measured."""


class Doubts:
    """The steps of what was doubted, by variant and processor.

    Attributes:
        steps: Those of what was doubted and is still above what was measured, or lasts.

    >>> doubts = Doubts()
    >>> doubts.taken_back("m", "cpu0", 2.0, measured_s=1.0)
    1.95
    >>> doubts.judge("m", "cpu0", is_confirmed=True)
    >>> doubts.taken_back("m", "cpu0", 2.0, measured_s=1.0)
    1.975
    """

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps: dict[tuple[str, str], float] = {}

    def taken_back(
        self, variant: str, processor: str, expected_s: float, measured_s: float
    ) -> float:
        """Return an estimate that is a step nearer to what was measured."""
        step = self.steps.setdefault((variant, processor), STEP)
        if expected_s > NEAR * measured_s:
            return expected_s - step * (expected_s - measured_s)
        if step == STEP:
            del self.steps[variant, processor]
        return measured_s

    def judge(self, variant: str, processor: str, *, is_confirmed: bool) -> None:
        """Note whether a run took at least what was estimated."""
        step = self.steps.get((variant, processor))
        if step is None:
            return
        if is_confirmed:
            self.steps[variant, processor] = max(step / 2, LEAST)
        else:
            del self.steps[variant, processor]

    def forget(self, variant: str) -> None:
        """Forget a variant."""
        if self.steps:
            self.steps = {key: step for key, step in self.steps.items() if key[0] != variant}
