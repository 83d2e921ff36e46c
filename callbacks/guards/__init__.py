"""Guards: callbacks that end a run safely on signals, lost processes and non-finite numbers."""
