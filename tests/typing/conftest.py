"""The sample is for type checkers; it isn't run."""

collect_ignore = ["sample.py"]
