"""Generation: images from captions, and labelled samples from labelled samples, by one diffusion model."""

from .config import DEFAULT_CONFIG, OFFICIAL, GenerationConfig, noise_seed
from .creation import CreationOptions
from .folder import create_samples
from .images import ImageGenerator
from .provenance import pixels_digest, sample_id, weights_digest
from .rejected import CreateError
from .scores import ScoreThreshold
from .synthetic_data import SyntheticDataGenerator

__all__ = [
    "DEFAULT_CONFIG",
    "OFFICIAL",
    "CreateError",
    "CreationOptions",
    "GenerationConfig",
    "ImageGenerator",
    "ScoreThreshold",
    "SyntheticDataGenerator",
    "create_samples",
    "noise_seed",
    "pixels_digest",
    "sample_id",
    "weights_digest",
]
