"""Print the path of a photograph in an installed package: a workshop with a motorcycle, 741 x 497.

It is from Middlebury Stereo 2014 and distributed by scikit-image under CC0. Nothing is downloaded.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def sample_photo() -> Path:
    """The photograph's path; SystemExit when scikit-image is not installed."""
    spec = find_spec("skimage")  # found, not imported: importing costs a second
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        photo = Path(folder) / "data" / "motorcycle_left.png"
        if photo.is_file():
            return photo
    sys.exit("no sample photograph: run scripts/env.sh samples, or give an image: make run ARGS=photo.jpg")


if __name__ == "__main__":
    print(sample_photo())
