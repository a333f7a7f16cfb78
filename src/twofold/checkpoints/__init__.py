"""Checkpoints: reading strictly, writing whole."""

from .own import EMBEDDED, Model, digest, load, open_model, save_model
from .settings import ModelSettings, TaskSettings
from .strict import ModelError

__all__ = [
    "EMBEDDED",
    "Model",
    "ModelError",
    "ModelSettings",
    "TaskSettings",
    "digest",
    "load",
    "open_model",
    "save_model",
]
