"""Read, write and resize images (sRGB in [0, 1]) and maps (raw values, never rescaled)."""

from twofold.image.maps import MAP_SUFFIXES, READ_CODECS, read_map, write_map
from twofold.image.memory import ImageInput, as_image, as_images, check_range, same_size
from twofold.image.resize import (
    longest_edge_size,
    pad_to_multiple,
    resize,
    resize_map,
    resize_nearest,
    resized_output,
)
from twofold.image.rgb import MAX_PIXELS, ImageError, read_image, write_image

__all__ = [
    "MAP_SUFFIXES",
    "MAX_PIXELS",
    "READ_CODECS",
    "ImageError",
    "ImageInput",
    "as_image",
    "as_images",
    "check_range",
    "longest_edge_size",
    "pad_to_multiple",
    "read_image",
    "read_map",
    "resize",
    "resize_map",
    "resize_nearest",
    "resized_output",
    "same_size",
    "write_image",
    "write_map",
]
