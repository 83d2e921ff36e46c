"""Figures of Nagarajan and Kolter (2019)."""
