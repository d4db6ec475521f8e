"""What `flask waffle doctor` looks at, and what it says about it."""

from .checks import Finding, Installation, Level, examine
from .options import Options, of_instances, read_ini

__all__ = ["Finding", "Installation", "Level", "Options", "examine", "of_instances", "read_ini"]
