"""Benchmarks of scRCL and its peers: `python -m benchmarks --help`."""
