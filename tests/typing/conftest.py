"""These are for type checkers; they aren't run."""

collect_ignore = ["application.py", "sample.py"]
