"""Benchmarks: `python -m bench.run` measures pik against other tools on the same input."""
