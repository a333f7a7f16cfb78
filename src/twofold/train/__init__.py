"""Recipes and the loop that runs them."""

from .config import DataConfig, EmaConfig, LoopConfig, OptimizerConfig, ValidationConfig
from .model_config import (
    AutoencoderConfig,
    DenoiserConfig,
    HeadConfig,
    ImageEncoderConfig,
    LoraConfig,
    NetworkConfig,
)
from .random_crop import RandomCrop
from .recipe import Recipe
from .source import Source

__all__ = [
    "AutoencoderConfig",
    "DataConfig",
    "DenoiserConfig",
    "EmaConfig",
    "HeadConfig",
    "ImageEncoderConfig",
    "LoopConfig",
    "LoraConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "RandomCrop",
    "Recipe",
    "Source",
    "ValidationConfig",
]
