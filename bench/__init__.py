"""Benchmarks: bench/run.py measures everything side by side with its yardstick, bench/test_parts.py times the parts alone."""
