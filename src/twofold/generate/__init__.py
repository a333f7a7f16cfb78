"""Multi-modal data creation: labelled samples to new labelled samples, by the network that both draws and sees."""

from .config import OFFICIAL, STANDARD, Settings, draw_seed
from .folder import CreateError, Job, create
from .provenance import pixels_digest, sample_id, weights_digest
from .scores import Keep
from .synthetic_data import Creator, creator_of

__all__ = [
    "OFFICIAL",
    "STANDARD",
    "CreateError",
    "Creator",
    "Job",
    "Keep",
    "Settings",
    "create",
    "creator_of",
    "draw_seed",
    "pixels_digest",
    "sample_id",
    "weights_digest",
]
