"""ICC profiles written by hand, so that their colours are known in closed form."""

from __future__ import annotations

import struct

import numpy as np

# Linear RGB to XYZ under D50 (the colour space that profiles are joined in), as ICC profiles of these spaces have them.
TO_XYZ = {
    "srgb": [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]],
    "p3": [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]],
    "adobe": [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]],
    "prophoto": [[0.79767, 0.13519, 0.03135], [0.28804, 0.71188, 0.00008], [0.0, 0.0, 0.82521]],
}
_WHITE = (0.9642, 1.0, 0.8249)


def _fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)


def _xyz(*numbers: float) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*numbers)


def _gamma(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def _profile(space: bytes, kind: bytes, joined: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78),
        b"wtpt": _xyz(*_WHITE),
    } | tags
    place, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content
    size = place + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, kind, space, joined) + bytes(12) + b"acsp"
    head += bytes(24) + struct.pack(">I", 0) + _fixed(*_WHITE)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + data


def rgb_profile(name: str, gamma: float = 2.2) -> bytes:
    """A matrix profile of the primaries `name` with a power law."""
    columns = np.array(TO_XYZ[name]).T
    tags = {f"{c}XYZ".encode(): _xyz(*column) for c, column in zip("rgb", columns, strict=True)}
    return _profile(b"RGB ", b"mntr", b"XYZ ", tags | {f"{c}TRC".encode(): _gamma(gamma) for c in "rgb"})


def grey_profile(gamma: float) -> bytes:
    """Grey with a power law."""
    return _profile(b"GRAY", b"mntr", b"XYZ ", {b"kTRC": _gamma(gamma)})


def cmyk_profile() -> bytes:
    """CMYK whose lightness falls linearly in K alone: C, M and Y change nothing."""
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += bytes(range(256)) * 4
    for node in range(16):  # K runs fastest
        table += bytes([0 if node % 2 else 255, 128, 128])
    return _profile(b"CMYK", b"prtr", b"Lab ", {b"A2B0": table + bytes(range(256)) * 3})


def to_srgb(rgb: np.ndarray, name: str, gamma: float = 2.2) -> np.ndarray:
    """Colours (... 3, in [0, 1]) of a matrix profile as sRGB in [0, 1], clipped to its gamut."""
    linear = rgb.astype(np.float64) ** gamma @ np.array(TO_XYZ[name]).T @ np.linalg.inv(TO_XYZ["srgb"]).T
    return srgb_encoded(linear.clip(0, 1))


def srgb_encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light to the sRGB curve."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
