"""What ends a run through no fault of its command: said in one line, with exit code 1."""


class RunError(RuntimeError):
    """A run cannot go on; the message is one line that says why, and how to go on."""


class LostProcessError(RunError):
    """Another process of the run has died or hangs."""


class DivergedError(RunError):
    """A loss, a weight or the optimizer's state has become NaN or infinite.

    Args:
        message: One line.
        step: Optimizer steps taken by then.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
