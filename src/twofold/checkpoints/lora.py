"""Low-rank weights (LoRA, Hu et al. 2022) merged into a U-Net: ``W + scale * up @ down``.

The scale is ``alpha / rank``, or ``alpha / sqrt(rank)`` with peft's ``use_rslora`` (Kalajdzievski 2023). Alpha is in a
tensor ``*.alpha`` (kohya, diffusers), in ``adapter_config.json`` (peft) or in a file's metadata (diffusers). Otherwise
it is a `DefaultAlpha`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from torch import Tensor

from ..io import quoted
from .strict import ModelError, Tensors, damaged, read_json, wrong_value

CONFIG = "adapter_config.json"
# Keys of diffusers' old attention processors: layer, projection, and role (matrix or alpha).
_PROCESSOR_KEY = re.compile(r"(.+)\.processor\.to_(q|k|v|out)_lora\.(?:(down|up)\.weight|(alpha))")
# Other keys: layer, role and name of the adapter; the first pattern that matches is used.
_KEYS = (
    re.compile(r"(.+)\.lora_(A|B)(?:\.(\w+))?\.weight"),  # peft
    re.compile(r"(.+)\.lora\.(down|up)()\.weight"),  # diffusers
    re.compile(r"(.+)\.lora_(down|up)()\.weight"),  # kohya
    re.compile(r"(.+)\.(alpha)()"),
)
_ROLES = {"A": "down", "B": "up", "down": "down", "up": "up", "alpha": "alpha"}
_PREFIX = re.compile(r"^(?:base_model\.model\.)?(?:unet\.)?")

Rank = Annotated[int, Field(ge=1, le=1 << 16)]
Alpha = Annotated[float, Field(gt=0, le=1e6)]


class AdapterConfig(BaseModel):
    """The used entries of peft's ``adapter_config.json``; adapters other than LoRA are refused."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    r: Rank | None = None
    lora_alpha: Alpha
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, Alpha] | None = None
    use_rslora: bool | None = False
    use_dora: Literal[False] | None = False
    fan_in_fan_out: Literal[False] | None = False
    lora_bias: Literal[False] | None = False

    def scale(self, layer: str, rank: int, where: Path) -> float:
        """Scale of a layer's LoRA weights, whose rank is known from their shape.

        Raises:
            ModelError: the config has another rank.
        """
        configured = _match_pattern(self.rank_pattern or {}, layer, self.r)
        if configured is not None and configured != rank:
            raise ModelError(
                f"{where}: {layer} has rank {rank}, and {CONFIG} has {configured}; they belong to different models"
            )
        alpha = _match_pattern(self.alpha_pattern or {}, layer, self.lora_alpha)
        assert alpha is not None
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def _match_pattern(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """The value of the first pattern that matches a layer as in peft: its name or, without ``^``, a suffix of that.

    Raises:
        ModelError: a pattern is not a plain name; regular expressions from files are not evaluated.
    """
    for pattern, value in patterns.items():
        name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not re.fullmatch(r"[\w.-]+", name):
            raise ModelError(
                f"{CONFIG} has the pattern {quoted(pattern)}; expected names of layers, so write them out"
            )
        if layer == name or (layer.endswith(f".{name}") and not pattern.startswith("^")):
            return value
    return default


@dataclass(frozen=True)
class DefaultAlpha:
    """The alpha of LoRA weights whose files do not contain it.

    Attributes:
        alpha: the value that the user passes, if any.
        equals_rank: whether alpha equals the rank if the user passes none; otherwise such weights are an error.
    """

    alpha: float | None = None
    equals_rank: bool = False


@dataclass
class _Layer:
    """The LoRA weights of one layer of a U-Net, and their keys in the file, by role: ``down``, ``up``, ``alpha``."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    of_processor: bool = False


def merge_peft(tensors: Tensors, folder: Path, default: DefaultAlpha) -> Tensors:
    """Merge the LoRA weights of a U-Net that was saved with peft's names (``*.base_layer.*``, ``*.lora_A.*``).

    Args:
        tensors: tensors of the U-Net, with or without LoRA weights.
        folder: folder of the U-Net, which or whose parent may have an ``adapter_config.json``.
        default: alpha, if the files do not contain it.

    Raises:
        ModelError: one matrix of a pair is missing or does not fit, or alpha is unknown.
    """
    if not any(".base_layer." in k or ".lora_A." in k or ".lora_B." in k for k in tensors):
        return tensors
    lora = {k: v for k, v in tensors.items() if ".lora_" in k or k.endswith(".alpha")}
    plain = {k.replace(".base_layer.", "."): v for k, v in tensors.items() if k not in lora}
    return merge(plain, lora, folder, _read_config((folder / CONFIG, folder.parent / CONFIG)), default)


def merge_file(tensors: Tensors, lora: Tensors, path: Path, default: DefaultAlpha) -> Tensors:
    """Merge the LoRA weights of a separate file into the tensors of a U-Net.

    Keys may be those of peft, kohya, diffusers, or diffusers' old attention processors
    (``<attention>.processor.to_{q,k,v,out}_lora.{down,up}.weight``), whose scale is 1 unless alpha is stored.

    Args:
        tensors: tensors of the U-Net.
        lora: tensors of the file.
        path: path of the file, beside which an ``adapter_config.json`` may be.
        default: alpha, if the files do not contain it.

    Raises:
        ModelError: a key is unknown, one matrix of a pair is missing or does not fit, or alpha is unknown.
    """
    return merge(tensors, lora, path, _read_metadata(path) or _read_config((path.parent / CONFIG,)), default)


def merge(
    tensors: Tensors, lora: Tensors, where: Path, config: AdapterConfig | None, default: DefaultAlpha
) -> Tensors:
    """Merge LoRA weights; see `merge_file`. ``config`` is peft's, if there is one."""
    layers = _layers(lora, {k.removesuffix(".weight") for k in tensors if k.endswith(".weight")}, where)
    out = dict(tensors)
    for name, layer in layers.items():
        missing = [role for role in ("down", "up") if role not in layer.tensors]
        if missing:
            present = next(iter(layer.keys.values()))
            raise ModelError(
                f"{where} has {present} and lacks {_counterpart(missing[0], present)}, the other matrix of the layer"
            )
        key = f"{name}.weight"
        if key not in out:
            raise ModelError(
                f"{where} has {layer.keys['down']}, but the base model has no {key}; is the base right?"
            )
        scale = _scale(name, layer, where, config, default)
        out[key] = _add_product(out[key], layer, scale, where)
    return out


def _layers(lora: Tensors, known: set[str], where: Path) -> dict[str, _Layer]:
    """Group LoRA weights by layer.

    Args:
        lora: tensors of the LoRA weights.
        known: names of the layers of the U-Net.
        where: path of the weights, for messages.
    """
    kohya_names = {f"lora_unet_{name.replace('.', '_')}": name for name in known}
    layers: dict[str, _Layer] = {}
    adapters: set[str] = set()
    for key, value in lora.items():
        of_processor = _PROCESSOR_KEY.fullmatch(key)
        match = next((m for m in (pattern.fullmatch(key) for pattern in _KEYS) if m), None)
        if of_processor is not None:
            projection = of_processor[2]
            name = f"{_PREFIX.sub('', of_processor[1])}.to_{projection}{'.0' if projection == 'out' else ''}"
            role = of_processor[3] or of_processor[4]
        elif match is not None:
            name = kohya_names.get(match[1], _PREFIX.sub("", match[1]))
            role = _ROLES[match[2]]
            adapters.add(match[3] or "")
        else:
            raise ModelError(f"{where} has the unexpected tensor {key}; expected LoRA weights of a U-Net")
        layer = layers.setdefault(name, _Layer())
        if role in layer.tensors:
            raise ModelError(f"{where} has {key} and {layer.keys[role]} for the same layer; keep one")
        layer.tensors[role], layer.keys[role] = value, key
        layer.of_processor = layer.of_processor or of_processor is not None
    if not any("down" in layer.tensors or "up" in layer.tensors for layer in layers.values()):
        raise ModelError(f"{where} has no low-rank weights; pass the file that has them")
    named = sorted(adapters - {""})
    if len(named) > 1:
        raise ModelError(f"{where} has the adapters {', '.join(named)}; save only the one to be used")
    return layers


def _counterpart(role: str, key: str) -> str:
    """The key of the other matrix of the layer of ``key``, for messages; ``role`` is that of the other matrix."""
    for down, up in (("lora_A.", "lora_B."), ("lora_down.", "lora_up."), ("lora.down.", "lora.up.")):
        if down in key or up in key:
            return key.replace(down, up) if down in key else key.replace(up, down)
    return f"weights {role}"


def _scale(
    name: str, layer: _Layer, where: Path, config: AdapterConfig | None, default: DefaultAlpha
) -> float:
    rank = int(layer.tensors["down"].shape[0]) if layer.tensors["down"].ndim else 0
    if rank < 1:
        raise ModelError(f"{where}: {layer.keys['down']} has no rank; is it damaged?")
    alpha = layer.tensors.get("alpha")
    if alpha is not None:
        if alpha.numel() != 1:
            raise ModelError(f"{where}: {layer.keys['alpha']} is {tuple(alpha.shape)}; alpha is one number")
        value = float(rank) if alpha.is_meta else float(alpha)
        if not 0 < value <= 1e6:
            raise ModelError(f"{where}: {layer.keys['alpha']} is {value:g}; alpha is a number above 0")
        return value / rank
    if config is not None:
        return config.scale(name, rank, where)
    if default.alpha is not None:
        return default.alpha / rank
    if layer.of_processor or default.equals_rank:
        return 1.0
    raise ModelError(
        f"{where} does not contain the scale of its low-rank weights: it has no *.alpha tensors, and there is no "
        f"{CONFIG} beside it; pass the lora_alpha of the training (twofold convert-checkpoint ... --lora-alpha N); "
        f"the rank is {rank}"
    )


def _add_product(base: Tensor, layer: _Layer, scale: float, where: Path) -> Tensor:
    """``base + scale * up @ down``, computed in float32; also for convolutions, whose ``up`` is 1x1."""
    down, up = layer.tensors["down"], layer.tensors["up"]
    fits = down.ndim in (2, 4) and up.ndim in (2, 4) and bool(down.numel() and up.numel() and base.ndim)
    fits = fits and down.is_floating_point() and up.is_floating_point()
    if fits:
        fits = up[0, 0].numel() == 1 and up.shape[1] == down.shape[0] and up.shape[0] == base.shape[0]
        fits = (
            fits
            and down[0].numel() == base[0].numel()
            and (down.ndim == 2 or down.shape[1:] == base.shape[1:])
        )
    if not fits:
        raise ModelError(
            f"{where}: {layer.keys['down']} {tuple(down.shape)} and the other matrix {tuple(up.shape)} cannot be added "
            f"to the base's {tuple(base.shape)}; is the base right?"
        )
    product = up.float().flatten(1) @ down.float().flatten(1)
    return (base.float() + scale * product.reshape(base.shape)).to(base.dtype)


def _read_config(paths: tuple[Path, ...]) -> AdapterConfig | None:
    """The adapter's config in the first of these files that exists."""
    path = next((p for p in paths if p.exists()), None)
    return None if path is None else _validated(read_json(path), path)


def _read_metadata(path: Path) -> AdapterConfig | None:
    """The adapter's config in the metadata of a safetensors file (diffusers since version 0.35)."""
    if path.suffix != ".safetensors":
        return None
    with damaged(path, "file of safetensors"), safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("lora_adapter_metadata")
        config = None if text is None else json.loads(text)
    if config is None:
        return None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: its lora_adapter_metadata is not an object; save it again")
    unet = {k.removeprefix("unet."): v for k, v in config.items() if k.startswith("unet.") or "." not in k}
    return _validated(unet, path)


def _validated(config: Mapping[str, Any], path: Path) -> AdapterConfig:
    try:
        return AdapterConfig.model_validate(dict(config))
    except ValidationError as error:
        raise ModelError(f"{path}: {wrong_value(error)}") from error
