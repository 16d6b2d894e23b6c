"""Counting what callers use, in the storages of the `limits` library."""
