"""Generation: images from captions, and labelled samples from labelled samples, by one diffusion model."""

from .config import (
    DEFAULT_CONFIG as DEFAULT_CONFIG,
    OFFICIAL as OFFICIAL,
    GenerationConfig as GenerationConfig,
    noise_seed as noise_seed,
)
from .creation import CreationOptions as CreationOptions
from .folder import create_samples as create_samples
from .images import ImageGenerator as ImageGenerator
from .provenance import (
    pixels_digest as pixels_digest,
    sample_id as sample_id,
    weights_digest as weights_digest,
)
from .rejected import CreateError as CreateError
from .scores import ScoreThreshold as ScoreThreshold
from .synthetic_data import SyntheticDataGenerator as SyntheticDataGenerator
