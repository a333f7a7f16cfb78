"""Recipes and the loop that runs them."""

from .recipe import Recipe, Source

__all__ = ["Recipe", "Source"]
