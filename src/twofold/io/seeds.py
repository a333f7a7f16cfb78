"""Seeds derived from keys."""

from __future__ import annotations

import hashlib


def derive_seed(*keys: int | str) -> int:
    """A seed of 63 bits that depends on ``keys`` and their order alone, the same on every machine.

    It is the SHA-256 of the keys, joined by "/": seeds of different keys are independent, and so is the n-th of a
    sequence of how many others were drawn.
    """
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
