"""Errors that end a run although its command is valid: reported in one line, with exit code 1."""


class RunError(RuntimeError):
    """A run cannot continue; the message is one line with the reason and how to resume."""


class LostProcessError(RunError):
    """Another process of the run has died or hangs."""


class DivergedError(RunError):
    """A loss, a weight or the state of the optimizer has become NaN or infinite.

    Args:
        message: One line.
        step: Optimizer steps taken by then.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
