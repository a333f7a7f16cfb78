"""What reads the answer out of the network."""

from .latent import LatentHead

__all__ = ["LatentHead"]
