"""How networks are compared."""

from dataclasses import dataclass

from lnsgd.analysis.interpolation import BatchNorm, check_line
from lnsgd.analysis.paired import check_rounds


@dataclass(frozen=True)
class How:
    """How networks are compared.

    Attributes:
        points: Of the line between them, both ends included.
        batch_norm: What becomes of running statistics between the ends, see ``lnsgd.analysis.interpolation``.
        features: Name of the module whose inputs are compared by CKA; by default those of the last layer.
        rounds: Of common probes, at least 2, see ``lnsgd.analysis.paired``.

    Raises:
        ValueError: numbers or a name that make no sense for any network.
    """

    points: int = 11
    batch_norm: BatchNorm = "reestimate"
    features: str | None = None
    rounds: int = 16

    def __post_init__(self) -> None:
        check_line(self.points, self.batch_norm)
        check_rounds(self.rounds)
