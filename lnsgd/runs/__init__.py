"""A run on disk and its life: folder, choice and resume, checkpoints, signals, errors, whole files, processes."""
