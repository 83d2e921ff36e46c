"""What fails in sending never fails what is sent about."""

from collections.abc import Callable

from pytorch_lightning.utilities import rank_zero_info


class Attempts:
    """Attempts to send something to a W&B run that is open already.

    A server that is gone, or refuses the key from now on, does not disturb numbers: W&B keeps them in the run's folder
    and goes on trying. Tables and artifacts ask the server at once: if that fails it is said once for their kind, and
    not tried again, for each attempt may take 20 s. Where W&B's own process has died nothing can be handed over.

    Attributes:
        process_died: Whether it has.
    """

    def __init__(self) -> None:
        self._given_up: set[str] = set()
        self.process_died = False

    @property
    def failed(self) -> bool:
        """Whether anything has failed."""
        return self.process_died or bool(self._given_up)

    def make(self, kind: str, send: Callable[[], None]) -> None:
        """Sends.

        Args:
            kind: What is sent, as it is told, such as ``tables``.
            send: Hands it to W&B.
        """
        import wandb

        if self.process_died or kind in self._given_up:
            return
        try:
            send()
        except ConnectionError as error:
            self.process_died = True
            rank_zero_info(f"W&B's own process has died ({one_line(error)}); the local files of this run are complete.")
        except (wandb.errors.Error, TimeoutError) as error:
            self._given_up.add(kind)
            rank_zero_info(f"W&B takes no more {kind} of this run ({one_line(error)}); its local files are complete.")


def one_line(error: Exception) -> str:
    """What an error says, without line ends."""
    return " ".join(str(error).split()) or type(error).__name__
