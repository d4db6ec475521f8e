"""What `flask waffle doctor` checks, and what it says about it."""

from .checks import examine
from .finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
