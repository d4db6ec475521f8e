"""What of the tests' own files is not to be imported in search of doctests: they run in servers only."""

collect_ignore_glob = ["live/site.py", "live/mule.py", "live/plain.py", "benchmarks/*.py"]
