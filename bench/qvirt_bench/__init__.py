"""Measurements: each figure next to a named baseline, both taken in the same run, written to docs/benchmarks.md.

`python -m qvirt_bench NAME...`; `cli` is the door, `parts` has a module a measurement.
"""
