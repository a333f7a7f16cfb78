"""Diffusion models behind one contract."""

from .backbone import Backbone, Output

__all__ = ["Backbone", "Output"]
