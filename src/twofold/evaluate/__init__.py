"""Measuring predictors."""

from .score import score, score_baselines

__all__ = ["score", "score_baselines"]
