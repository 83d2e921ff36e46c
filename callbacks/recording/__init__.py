"""Recording: callbacks and helpers that write the record of a run, its tables and its pictures."""
