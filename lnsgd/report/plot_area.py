"""The size of a plot in units of its SVG, and the part of it that holds the curves."""

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 284, 8, 128
