"""Runs that the tests of this folder analyze."""

from tests.analysis.analyzed_runs import replicated, run

__all__ = ["replicated", "run"]
