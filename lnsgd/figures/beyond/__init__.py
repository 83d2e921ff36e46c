"""Figures that ask questions which the papers leave open."""
