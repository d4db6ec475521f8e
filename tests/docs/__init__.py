"""The documentation as tests: what README.md and docs/ show is run, compared and followed."""
