"""Engines that take the SGD steps of all replicas.

The general engine runs any network; each kernel engine runs one kind of network in compiled loops on the CPU.
"""
