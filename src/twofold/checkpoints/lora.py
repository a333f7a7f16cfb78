"""Low-rank weights (LoRA, Hu et al. 2022) merged into a U-Net: ``W + scale * up @ down``.

The scale is ``alpha / rank``, or ``alpha / sqrt(rank)`` with peft's ``use_rslora`` (Kalajdzievski 2023). Alpha is in a
tensor ``*.alpha`` (kohya, diffusers), in ``adapter_config.json`` (peft) or in a file's metadata (diffusers). Otherwise
it is that of the format or method, or the value that the user passes; without either the file is refused.
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
# Patterns of keys: (layer, part); the first that matches is used.
_OLD = re.compile(r"(.+)\.processor\.to_(q|k|v|out)_lora\.(?:(down|up)\.weight|(alpha))")
_FORMS = (
    re.compile(r"(.+)\.lora_(A|B)(?:\.(\w+))?\.weight"),  # peft
    re.compile(r"(.+)\.lora\.(down|up)()\.weight"),  # diffusers
    re.compile(r"(.+)\.lora_(down|up)()\.weight"),  # kohya
    re.compile(r"(.+)\.(alpha)()"),
)
_PARTS = {"A": "down", "B": "up", "down": "down", "up": "up", "alpha": "alpha"}
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
        configured = _of_pattern(self.rank_pattern or {}, layer, self.r)
        if configured is not None and configured != rank:
            raise ModelError(
                f"{where}: {layer} has rank {rank}, and {CONFIG} has {configured}; they do not belong together"
            )
        alpha = _of_pattern(self.alpha_pattern or {}, layer, self.lora_alpha)
        assert alpha is not None
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def _of_pattern(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """The value of the first pattern that equals a layer's name or, without ``^``, is its suffix, as in peft.

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
class Stated:
    """Alpha from other sources than the file.

    Attributes:
        alpha: value passed by the user; None if none.
        equals_rank: whether alpha = rank for the method of the weights.
    """

    alpha: float | None = None
    equals_rank: bool = False


@dataclass
class _Layer:
    """The LoRA weights of one layer of a U-Net."""

    parts: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    old: bool = False


def merge_own(tensors: Tensors, folder: Path, stated: Stated) -> Tensors:
    """Merge the LoRA weights of a U-Net that was saved with peft's names (``*.base_layer.*``, ``*.lora_A.*``).

    Raises:
        ModelError: one half of a pair is missing or does not fit, or alpha is not known.
    """
    if not any(".base_layer." in k or ".lora_A." in k or ".lora_B." in k for k in tensors):
        return tensors
    lora = {k: v for k, v in tensors.items() if ".lora_" in k or k.endswith(".alpha")}
    plain = {k.replace(".base_layer.", "."): v for k, v in tensors.items() if k not in lora}
    return merge(plain, lora, folder, _config_of((folder / CONFIG, folder.parent / CONFIG)), stated)


def merge_file(tensors: Tensors, lora: Tensors, path: Path, stated: Stated) -> Tensors:
    """Merge the LoRA weights of a separate file into the tensors of a U-Net.

    Names may be those of peft, kohya, diffusers, or diffusers' old attention processors
    (``<attention>.processor.to_{q,k,v,out}_lora.{down,up}.weight``), whose scale is 1 unless alpha is stored.

    Raises:
        ModelError: a tensor has another name, lacks its other half, fits no layer, or alpha is not known.
    """
    return merge(tensors, lora, path, _metadata_of(path) or _config_of((path.parent / CONFIG,)), stated)


def merge(
    tensors: Tensors, lora: Tensors, where: Path, config: AdapterConfig | None, stated: Stated
) -> Tensors:
    """See `merge_file`; ``config`` is peft's, if there is one."""
    layers = _layers(lora, {k.removesuffix(".weight") for k in tensors if k.endswith(".weight")}, where)
    out = dict(tensors)
    for name, layer in layers.items():
        missing = [part for part in ("down", "up") if part not in layer.parts]
        if missing:
            there = next(iter(layer.keys.values()))
            raise ModelError(
                f"{where} has {there} and lacks {_spelled(missing[0], there)}, the other half of the layer"
            )
        key = f"{name}.weight"
        if key not in out:
            raise ModelError(
                f"{where} has {layer.keys['down']}, but the base model has no {key}; is the base right?"
            )
        scale = _scale(name, layer, where, config, stated)
        out[key] = _added(out[key], layer, scale, where)
    return out


def _layers(lora: Tensors, known: set[str], where: Path) -> dict[str, _Layer]:
    """LoRA weights by the name of their layer in the U-Net."""
    joined = {f"lora_unet_{name.replace('.', '_')}": name for name in known}  # kohya writes no dots
    layers: dict[str, _Layer] = {}
    adapters: set[str] = set()
    for key, value in lora.items():
        old = _OLD.fullmatch(key)
        found = next((m for m in (form.fullmatch(key) for form in _FORMS) if m), None)
        if old is not None:
            name = f"{_PREFIX.sub('', old[1])}.to_{old[2]}{'.0' if old[2] == 'out' else ''}"
            part = old[3] or old[4]
        elif found is not None:
            name = joined.get(found[1], _PREFIX.sub("", found[1]))
            part = _PARTS[found[2]]
            adapters.add(found[3] or "")
        else:
            raise ModelError(f"{where} has the unexpected tensor {key}; expected LoRA weights of a U-Net")
        layer = layers.setdefault(name, _Layer())
        if part in layer.parts:
            raise ModelError(
                f"{where} has {key} beside {layer.keys[part]}, which is of the same layer; keep one"
            )
        layer.parts[part], layer.keys[part], layer.old = value, key, layer.old or old is not None
    if not any("down" in layer.parts or "up" in layer.parts for layer in layers.values()):
        raise ModelError(f"{where} holds no low-rank weights; pass the file that has them")
    named = sorted(adapters - {""})
    if len(named) > 1:
        raise ModelError(f"{where} holds the adapters {', '.join(named)}; save only the one to be used")
    return layers


def _spelled(part: str, there: str) -> str:
    """The name of the other half of a key, if known, for messages."""
    for a, b in (
        ("lora_A", "lora_B"),
        ("lora_down", "lora_up"),
        ("lora.down", "lora.up"),
        ("_lora.down", "_lora.up"),
    ):
        for one, other in ((a, b), (b, a)):
            if f"{one}." in there:
                return there.replace(f"{one}.", f"{other}.")
    return f"weights {part}"


def _scale(name: str, layer: _Layer, where: Path, config: AdapterConfig | None, stated: Stated) -> float:
    rank = int(layer.parts["down"].shape[0]) if layer.parts["down"].ndim else 0
    if rank < 1:
        raise ModelError(f"{where}: {layer.keys['down']} has no rank; is it damaged?")
    alpha = layer.parts.get("alpha")
    if alpha is not None:
        if alpha.numel() != 1:
            raise ModelError(f"{where}: {layer.keys['alpha']} is {tuple(alpha.shape)}; alpha is one number")
        value = float(rank) if alpha.is_meta else float(alpha)
        if not 0 < value <= 1e6:
            raise ModelError(f"{where}: {layer.keys['alpha']} is {value:g}; alpha is a number above 0")
        return value / rank
    if config is not None:
        return config.scale(name, rank, where)
    if stated.alpha is not None:
        return stated.alpha / rank
    if layer.old or stated.equals_rank:
        return 1.0
    raise ModelError(
        f"{where} has no scale of its low-rank weights: it has no *.alpha tensors, and there is no {CONFIG} beside it; "
        f"pass lora_alpha (twofold convert-checkpoint ... --lora-alpha N) from the settings of the training; "
        f"their rank is {rank}"
    )


def _added(base: Tensor, layer: _Layer, scale: float, where: Path) -> Tensor:
    """``base + scale * up @ down`` in float32; also for convolutions, whose ``up`` is 1x1."""
    down, up = layer.parts["down"], layer.parts["up"]
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
            f"{where}: {layer.keys['down']} {tuple(down.shape)} and its other half {tuple(up.shape)} cannot be added "
            f"to the base's {tuple(base.shape)}; is the base right?"
        )
    product = up.float().flatten(1) @ down.float().flatten(1)
    return (base.float() + scale * product.reshape(base.shape)).to(base.dtype)


def _config_of(paths: tuple[Path, ...]) -> AdapterConfig | None:
    path = next((p for p in paths if p.exists()), None)
    return None if path is None else _checked(read_json(path), path)


def _metadata_of(path: Path) -> AdapterConfig | None:
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
    own = {k.removeprefix("unet."): v for k, v in config.items() if k.startswith("unet.") or "." not in k}
    return _checked(own, path)


def _checked(found: Mapping[str, Any], path: Path) -> AdapterConfig:
    try:
        return AdapterConfig.model_validate(dict(found))
    except ValidationError as error:
        raise ModelError(f"{path}: {wrong_value(error)}") from error
