"""Figures of papers: each file defines the config, the arms, the claims and the picture of one figure."""
