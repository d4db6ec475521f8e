"""What `flask waffle doctor` checks, and what it says about it."""

from .checks import examine
from .finding import Finding

__all__ = ["Finding", "examine"]
