"""Recognition of image files by suffix or by their first bytes."""

from __future__ import annotations

import os

TGA_SUFFIXES = frozenset({".tga", ".icb", ".vda", ".vst"})
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"})
# Linear light in floats: tone-mapped when read as an image, see `linear`.
LINEAR_SUFFIXES = frozenset({".exr", ".hdr", ".rgbe"})
_OTHERS = "avif bmp gif j2k jp2 jpeg jpg jpe jfif pbm pgm png pnm ppm tif tiff webp"
# Files with these suffixes are images when a folder is searched.
IMAGE_SUFFIXES = (
    frozenset(f".{suffix}" for suffix in _OTHERS.split()) | TGA_SUFFIXES | HEIF_SUFFIXES | LINEAR_SUFFIXES
)
# Number of bytes that `sniff` needs.
HEAD_BYTES = 32
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"v/1\x01", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"#?RGBE", "hdr"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def sniff(head: bytes) -> str:
    """The format of an image file by its first HEAD_BYTES bytes, such as "png"; "" for anything else."""
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brands = {head[i : i + 4] for i in range(8, len(head), 4)}
        if brands & {b"avif", b"avis"}:
            return "avif"
        return "heif" if brands & _HEIF_BRANDS else ""
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "bmp"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "ppm"
    return ""


def sniff_file(path: str | os.PathLike[str]) -> str:
    """`sniff` of a file; "" when it is not an image or cannot be read."""
    if not os.path.isfile(path):  # opening a pipe would wait for its writer
        return ""
    try:
        with open(path, "rb") as file:
            return sniff(file.read(HEAD_BYTES))
    except (OSError, ValueError):
        return ""
