"""Figures of papers: one file a figure says which config, which arms, which claims, and how it is drawn."""
