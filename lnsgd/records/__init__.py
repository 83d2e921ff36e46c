"""Records: one module per file format of a run, a sweep, a figure or an analysis.

Each module declares the columns or fields of its format once, and has the writer and the reader of it. No other room
names a column.
"""
