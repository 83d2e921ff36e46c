"""Statements of the papers, in their own words, so that each claim says which statement it tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# The most words of a quotation.
MOST_WORDS = 12


@dataclass(frozen=True)
class Statement:
    """An empirical statement of a paper, or a theorem that an experiment can contradict.

    Attributes:
        id: Short name, unique among all papers: ``cornacchia/hypercube-error``.
        paper: Authors, as they are cited.
        section: Section, figure or theorem.
        quote: The statement in the paper's words, at most twelve of them. Formulas are written in Unicode, and ``…``
            stands for words that are left out.
        untested: Why no claim tests it; empty if one does.
    """

    id: str
    paper: str
    section: str
    quote: str
    untested: str = ""

    @property
    def source(self) -> str:
        """Paper and section, as printed beside a claim."""
        return f"{self.paper}, {self.section}"


def statements_of(prefix: str, paper: str, table: Mapping[str, Sequence[str]]) -> dict[str, Statement]:
    """Make the statements of a paper from a table.

    Args:
        prefix: First part of the identifiers, before a slash.
        paper: Authors, as they are cited.
        table: For each name: section, quotation, and why no claim tests it, if none does.

    Returns:
        The statements by name, without the prefix.

    Example:
        >>> statements_of("smith", "Smith", {"rises": ("Fig. 1", "it rises")})["rises"].source
        'Smith, Fig. 1'
    """
    return {name: Statement(f"{prefix}/{name}", paper, *columns) for name, columns in table.items()}
