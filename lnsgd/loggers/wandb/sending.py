"""Send data to Weights & Biases so that a failure never disturbs the run."""

from collections.abc import Callable

from pytorch_lightning.utilities import rank_zero_info


class Sender:
    """A sender of data to an open W&B run.

    If the server is unreachable or refuses the key, numbers are not affected: W&B keeps them in the run's folder and
    tries again. Tables and artifacts are sent at once. A failure is reported once for their kind and not tried again,
    because each try may take 20 s. After the process of W&B has died, nothing can be sent.

    Attributes:
        process_died: Whether the process of W&B has died.
    """

    def __init__(self) -> None:
        self._given_up: set[str] = set()
        self.process_died = False

    @property
    def failed(self) -> bool:
        """Whether sending anything has failed."""
        return self.process_died or bool(self._given_up)

    def send(self, kind: str, send: Callable[[], None]) -> None:
        """Send something, unless its kind has failed before.

        Args:
            kind: Kind of the data, for the message, such as ``tables``.
            send: Passes the data to W&B.
        """
        import wandb

        if self.process_died or kind in self._given_up:
            return
        try:
            send()
        except ConnectionError as error:
            self.process_died = True
            rank_zero_info(
                f"The process of W&B has died ({one_line(error)}); the local files of this run are complete."
            )
        except (wandb.errors.Error, TimeoutError) as error:
            self._given_up.add(kind)
            rank_zero_info(
                f"W&B accepts no further {kind} of this run ({one_line(error)}); its local files are complete."
            )


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
