"""``flask waffle``: read and change variables from a shell."""

from . import transfers, values, watching  # noqa: F401  # each adds its commands
from .command import waffle

__all__ = ["waffle"]
