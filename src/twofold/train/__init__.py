"""Recipes and the loop that runs them."""

from .config import (
    DataConfig as DataConfig,
    EmaConfig as EmaConfig,
    LoopConfig as LoopConfig,
    OptimizerConfig as OptimizerConfig,
    ValidationConfig as ValidationConfig,
)
from .model_config import (
    AutoencoderConfig as AutoencoderConfig,
    DenoiserConfig as DenoiserConfig,
    HeadConfig as HeadConfig,
    ImageEncoderConfig as ImageEncoderConfig,
    LoraConfig as LoraConfig,
    NetworkConfig as NetworkConfig,
)
from .random_crop import RandomCrop as RandomCrop
from .recipe import Recipe as Recipe
from .source import Source as Source
