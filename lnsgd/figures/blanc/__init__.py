"""Figures of Blanc, Gupta, Valiant and Valiant (2020)."""
