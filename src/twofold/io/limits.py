"""The maximal size of an image, for a process and its child processes."""

from __future__ import annotations

import os

# Default maximal number of pixels of an image or map.
MAX_PIXELS = 50_000_000
# Environment variable that overrides it; set by the option --max-pixels of commands.
LIMIT_VARIABLE = "TWOFOLD_MAX_PIXELS"
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9}


def parse_pixels(text: str) -> int:
    """Parse a number of pixels such as "200000000" or "200M". ValueError for anything else."""
    digits, unit = (text[:-1], _UNITS[text[-1].lower()]) if text[-1:].lower() in _UNITS else (text, 1)
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) * unit < 2**40):
        raise ValueError(f"{text!a} is not a number of pixels, such as 200000000 or 200M")
    return int(digits) * unit


def pixel_limit() -> int:
    """Maximal number of pixels of an image or map: the environment variable LIMIT_VARIABLE, or MAX_PIXELS.

    ValueError when the variable is not a number of pixels.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        return parse_pixels(text) if text else MAX_PIXELS
    except ValueError as error:
        raise ValueError(f"the environment variable {LIMIT_VARIABLE}: {error}") from None
