"""Benchmarks: run one from the top of the repository as `python -m benchmarks.NAME`."""
