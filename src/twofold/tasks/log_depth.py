"""The logarithm of depth up to scale and shift (Eigen et al. 2014; DepthFM)."""

from __future__ import annotations

import torch

from .spaces import distance_task

log_depth = distance_task("log_depth", "logarithmic depth map", torch.log, torch.exp, near=0)
