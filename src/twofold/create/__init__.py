"""Multi-modal data creation: labelled samples to new labelled samples, by the network that both draws and sees."""

from .creator import Creator, creator_of
from .job import CreateError, Job, create
from .record import pixels_digest, sample_id, weights_digest
from .scores import Keep
from .settings import OFFICIAL, STANDARD, Settings, draw_seed

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
