"""Recipes and the loop that runs them."""

from .random_crop import RandomCrop
from .recipe import Recipe, Source

__all__ = ["RandomCrop", "Recipe", "Source"]
