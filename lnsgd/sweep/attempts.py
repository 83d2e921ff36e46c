"""Attempts at a job: how many there were, and how many of them were in vain."""

from dataclasses import dataclass, field

from lnsgd.run_folder import RunFolder


@dataclass
class Attempts:
    """How often a job was begun, but for those times that it was stopped on request; and how that ended.

    Attributes:
        starts: For each attempt the step at which it began: that of the run's newest checkpoint.
        errors: One line for each that failed, as far as somebody was left to tell.
    """

    starts: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def begun(self) -> int:
        """Number of attempts."""
        return len(self.starts)

    def in_vain(self, step: int) -> int:
        """Number of the last attempts in a row that got the run no further.

        Only these count against the retries, so that a run that gets on is never given up, however often the machine
        below it dies.

        Args:
            step: Where the run stands now, see `step_reached`.

        Example:
            >>> Attempts([0, 0, 400]).in_vain(400), Attempts([0, 0, 400]).in_vain(900)
            (1, 0)
        """
        number = 0
        while number < self.begun and self.starts[-1 - number] == step:
            number += 1
        return number


def step_reached(run: RunFolder) -> int:
    """The step of a run's newest checkpoint that is whole; 0 where it has none, which gets it nowhere."""
    # Here, because it takes seconds to import, which a table does not need.
    from lnsgd.run_choice import find_newest

    return find_newest(run).step
