"""The ways in which the waits of a retry policy grow. Apart from the models of `resiliency`, which a node
without such resources does not load. Imports nothing.
"""

from __future__ import annotations

import enum

__all__ = ["Backoff"]


class Backoff(enum.Enum):
    CONSTANT = "constant"
    EXPONENTIAL = "exponential"
