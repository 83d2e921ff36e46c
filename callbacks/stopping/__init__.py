"""Stopping rules: callbacks that end training when a measured quantity reaches a threshold."""
