"""Seeds derived from keys."""

from __future__ import annotations

import hashlib


def derive_seed(*keys: int | str) -> int:
    """A seed of 63 bits that depends only on ``keys`` and their order, the same on every machine.

    It is taken from the SHA-256 of the keys, joined by "/", so seeds of different keys are independent.
    """
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
