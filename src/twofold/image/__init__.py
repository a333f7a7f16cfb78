"""Read, write and resize images (sRGB in [0, 1]) and maps (raw values, never rescaled)."""

from twofold.image.maps import (
    MAP_SUFFIXES as MAP_SUFFIXES,
    READ_CODECS as READ_CODECS,
    read_map as read_map,
    write_map as write_map,
)
from twofold.image.memory import (
    ImageInput as ImageInput,
    as_image as as_image,
    as_images as as_images,
    check_range as check_range,
    same_size as same_size,
)
from twofold.image.resize import (
    longest_edge_size as longest_edge_size,
    pad_to_multiple as pad_to_multiple,
    resize as resize,
    resize_map as resize_map,
    resize_nearest as resize_nearest,
    resized_output as resized_output,
)
from twofold.image.rgb import (
    MAX_PIXELS as MAX_PIXELS,
    ImageError as ImageError,
    read_image as read_image,
    write_image as write_image,
)
