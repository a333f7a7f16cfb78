"""Noise schedules, the four prediction types, and their conversion to x0.

Everywhere in twofold a noisy latent is ``x = alpha * x0 + sigma * noise``. A schedule maps a time step to that pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Parametrization = Literal["epsilon", "v", "x0", "flow"]
BetaFamily = Literal["linear", "scaled_linear", "power"]
Spacing = Literal["leading", "trailing"]

# Alpha and sigma.
Scales = tuple[Tensor, Tensor]

# Training time steps that a schedule may have; the published ones have 1000.
MAX_STEPS = 100_000

# diffusers' names in scheduler_config.json
_FROM_DIFFUSERS: dict[str, Parametrization] = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "sample": "x0",
    "flow_prediction": "flow",
}


def cast_like(values: Tensor, like: Tensor) -> Tensor:
    """``values`` in the dtype of ``like`` and then on its device: some devices (MPS) have no float64."""
    return values.to(like.dtype).to(like.device)


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Shape ``b`` values as ``b 1 1 1`` in the dtype and on the device of ``like`` (``b c h w``)."""
    return cast_like(values, like).reshape(-1, *[1] * (like.ndim - 1))


def to_x0(prediction: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, kind: Parametrization) -> Tensor:
    """The clean latent of a network's prediction at ``x = alpha * x0 + sigma * noise``.

    Args:
        prediction: ``b c h w``, of the network.
        x: ``b c h w``, its input.
        alpha: ``b 1 1 1`` scale of the signal in ``x``.
        sigma: ``b 1 1 1`` scale of the noise in ``x``.
        kind: ``epsilon`` (Ho et al. 2020, eq. 15), ``v`` (Salimans & Ho 2022, app. D), ``x0``, or ``flow``
            (rectified flow: velocity ``noise - x0`` at ``alpha + sigma = 1``).

    Raises:
        ValueError: ``epsilon`` where ``x`` holds no signal (alpha = 0), which leaves x0 undetermined.
    """
    match kind:
        case "x0":
            return prediction
        case "v":
            return alpha * x - sigma * prediction
        case "flow":
            return x - sigma * prediction
        case "epsilon":
            if bool((alpha == 0).any()):
                raise ValueError(
                    "x0 cannot be computed from a noise prediction where alpha is 0 (pure noise); "
                    "use a v- or x0-predicting model, or a schedule without zero terminal SNR"
                )
            return (x - sigma * prediction) / alpha
    raise ValueError(f"unknown parametrization {kind!r}; one of {', '.join(get_args(Parametrization))}")


def from_x0(x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, kind: Parametrization) -> Tensor:
    """The prediction of a perfect network at ``alpha * x0 + sigma * noise``: the training target."""
    match kind:
        case "x0":
            return x0
        case "v":
            return alpha * noise - sigma * x0
        case "flow":
            return noise - x0
        case "epsilon":
            return noise
    raise ValueError(f"unknown parametrization {kind!r}; one of {', '.join(get_args(Parametrization))}")


def x0_to_prediction(x0: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, kind: Parametrization) -> Tensor:
    """The prediction at ``x`` that `to_x0` converts to ``x0``: its inverse, where sigma is not 0."""
    match kind:
        case "x0":
            return x0
        case "v":
            return (alpha * x - x0) / sigma
        case "flow":
            return (x - x0) / sigma
        case "epsilon":
            return (x - alpha * x0) / sigma
    raise ValueError(f"unknown parametrization {kind!r}; one of {', '.join(get_args(Parametrization))}")


def betas(
    start: float,
    end: float,
    family: BetaFamily = "scaled_linear",
    steps: int = 1000,
    exponent: float = 2.0,
) -> Tensor:
    """``steps`` noise increments in float64; ``scaled_linear`` is linear in the square root (GenPercept eq. 5).

    ``power`` is linear in the ``exponent``-th root, of which ``linear`` and ``scaled_linear`` are the cases 1 and 2.
    """
    powers = {"linear": 1.0, "scaled_linear": 2.0, "power": exponent}
    if family not in powers:
        raise ValueError(f"unknown beta schedule {family!r}; one of {', '.join(get_args(BetaFamily))}")
    p = powers[family]
    return torch.linspace(start ** (1 / p), end ** (1 / p), steps, dtype=torch.float64) ** p


def zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha_bar) so that the last step is pure noise (Lin et al. 2024, algorithm 1)."""
    root = alpha_bar.sqrt()
    if root[0] == root[-1]:
        if root[0] == 0:
            return alpha_bar  # beta = (1, 1): it is pure noise throughout
        raise ValueError("a schedule that adds no noise cannot be rescaled to end in pure noise")
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


@dataclass(frozen=True, eq=False)
class Schedule:
    """A discrete variance-preserving schedule, or the straight line of rectified flow.

    Attributes:
        alpha_bar: ``T`` float64 cumulative products; ignored by ``flow``, whose sigma is ``t / T``.
        prediction_type: what the network that was trained on it predicts.
        final_alpha_bar: where sampling ends: 1 (diffusers' ``set_alpha_to_one``) or ``alpha_bar[0]``.
        config: the scheduler settings it was read from, in diffusers' format.
    """

    alpha_bar: Tensor
    prediction_type: Parametrization
    final_alpha_bar: float
    config: Mapping[str, Any]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """Read diffusers' ``scheduler_config.json``; defaults are those of its ``DDIMScheduler``."""
        kind = config.get("prediction_type", "epsilon")
        if kind not in _FROM_DIFFUSERS:
            raise ValueError(f"unknown prediction_type {kind!r}; one of {', '.join(_FROM_DIFFUSERS)}")
        steps = int(config.get("num_train_timesteps", 1000))
        if config.get("trained_betas") is not None:
            table = torch.tensor(config["trained_betas"], dtype=torch.float64)
        else:
            start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
            table = betas(start, end, config.get("beta_schedule", "linear"), steps)
        return cls._built(
            table,
            bool(config.get("rescale_betas_zero_snr", False)),
            _FROM_DIFFUSERS[kind],
            bool(config.get("set_alpha_to_one", True)),
            config,
        )

    @classmethod
    def _built(
        cls,
        table: Tensor,
        zero_snr: bool,
        prediction_type: Parametrization,
        set_alpha_to_one: bool,
        config: Mapping[str, Any],
    ) -> Schedule:
        alpha_bar = (1 - table).cumprod(0)
        if zero_snr:
            alpha_bar = zero_terminal_snr(alpha_bar)
        return cls(alpha_bar, prediction_type, 1.0 if set_alpha_to_one else float(alpha_bar[0]), dict(config))

    @classmethod
    def from_betas(
        cls,
        start: float,
        end: float,
        family: BetaFamily = "scaled_linear",
        steps: int = 1000,
        *,
        zero_snr: bool = False,
        prediction_type: Parametrization = "v",
        set_alpha_to_one: bool = False,
        exponent: float = 2.0,
    ) -> Schedule:
        """From its numbers; see `betas` and `zero_terminal_snr`."""
        return cls._built(
            betas(start, end, family, steps, exponent), zero_snr, prediction_type, set_alpha_to_one, {}
        )

    @classmethod
    def flow(cls, steps: int = 1000) -> Schedule:
        """Rectified flow: ``x = (1 - s) x0 + s noise`` with ``s = t / steps``, t in (0, steps]."""
        config = {"num_train_timesteps": steps, "prediction_type": "flow_prediction"}
        return cls(torch.linspace(1, 0, steps + 1, dtype=torch.float64)[1:], "flow", 1.0, config)

    @property
    def steps(self) -> int:
        """Number of training time steps, T."""
        return len(self.alpha_bar)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma, each ``b`` float64, at time steps ``t`` (``b``; integers, or floats for flow).

        They are on the CPU, wherever ``t`` is; `cast_like` brings them to a device.
        """
        t = t.cpu()
        if self.prediction_type == "flow":
            sigma = t.double() / self.steps
            return 1 - sigma, sigma
        here = self.alpha_bar[t.long()]
        return here.sqrt(), (1 - here).sqrt()

    def end(self) -> tuple[Tensor, Tensor]:
        """Alpha and sigma (0-d float64, on the CPU) at which sampling ends."""
        final = torch.tensor(self.final_alpha_bar, dtype=torch.float64)
        return final.sqrt(), (1 - final).sqrt()

    def scales_after(self, steps: Sequence[float], end: tuple[float, float] | None = None) -> list[Scales]:
        """Alpha and sigma (each ``1``, float64) after each of the denoising ``steps``: those of the next step.

        After the last they are ``end``, by default `end()`.
        """
        last = self.end() if end is None else tuple(torch.tensor(s, dtype=torch.float64) for s in end)
        return [
            *(self.scales(torch.tensor([t])) for t in steps[1:]),
            (last[0].reshape(1), last[1].reshape(1)),
        ]

    def scales_like(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The scales at ``t``, shaped ``b 1 1 1`` in the dtype of ``x`` (``b c h w``)."""
        alpha, sigma = self.scales(t)
        return per_image(alpha, x), per_image(sigma, x)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``alpha * x0 + sigma * noise`` at ``t``, with the two scales shaped ``b 1 1 1``."""
        alpha, sigma = self.scales_like(t, x0)
        return alpha * x0 + sigma * noise, alpha, sigma

    def step_at(self, strength: float) -> int:
        """The time step at a fraction of the schedule: 600 of 1000 for 0.6, the last one for 1."""
        last = self.steps if self.prediction_type == "flow" else self.steps - 1
        return min(max(1, round(strength * self.steps)), last)

    def timesteps(self, count: int, spacing: Spacing = "trailing", offset: int = 0) -> list[int]:
        """``count`` integer time steps from noisy to clean, spaced as in diffusers.

        Raises:
            ValueError: more steps than the schedule has, or fewer than one.
        """
        if not 1 <= count <= self.steps:
            raise ValueError(f"{count} steps of a schedule of {self.steps}; pass 1 to {self.steps}")
        if spacing == "leading":
            ratio = self.steps // count
            return [i * ratio + offset for i in reversed(range(count))]
        if spacing == "trailing":
            ratio = self.steps / count
            return [round(self.steps - i * ratio) - 1 for i in range(count)]
        raise ValueError(f"unknown spacing {spacing!r}; one of {', '.join(get_args(Spacing))}")
