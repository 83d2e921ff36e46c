"""Executors run the jobs of a sweep: as processes of this machine, or as tasks of SLURM."""
