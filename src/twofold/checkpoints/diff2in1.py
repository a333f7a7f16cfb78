"""Diff-2-in-1's files: a fusion network and a decoder of normals, each a bare table of tensors, and Stable Diffusion.

The authors' programs save ``sn_ckpt`` (``checkpoint_<epoch>.pth``) and ``bae_ckpt`` (``checkpoint_bae_<epoch>.pth``);
together they are one `BaeHead`. A third of the first is of parts that are never run; they are left out and named.
They predict vectors with x to the left, `BaeHead` with x to the right (RUB): the two differ by the sign of a few
weights, which is changed when files are read and written.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones.stable_diffusion import StableDiffusion
from ..heads import Head
from ..heads.bae import BaeHead
from ..io import atomic_write
from . import components
from .components import LoadOptions
from .ldm import read_ldm
from .locate import fetch_base
from .strict import ModelError, Tensors, damaged, load_strictly, read_file, weight_files
from .tokenizer import read_tokenizer

_LOG = logging.getLogger(__name__)

# Weights that compute the x of a vector (a row), or read it (a column).
_COMPUTES_X = re.compile(r"decoder\.(predict|refine\.\d\.6)\.(weight|bias)")
_READS_X = re.compile(r"decoder\.refine\.\d\.0\.weight")

_LEVELS = ("low", "mid", "high", "highest")
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def _fusion_names() -> dict[str, str]:
    """The authors' names of the fusion network's tensors, by ours."""
    out = {f"fusion.join.{i}.weight": f"{level}_feature_conv.0.weight" for i, level in enumerate(_LEVELS)}
    for i, level in enumerate(_LEVELS[1:]):
        ours, theirs = f"fusion.mix.{i}", f"{level}_feature_mix_conv"
        for k in (1, 2):
            out[f"{ours}.norm{k}.running_mean"] = f"{theirs}.stored_mean{k}"
            out[f"{ours}.norm{k}.running_var"] = f"{theirs}.stored_var{k}"
        for mine, name in (("conv1", "conv1"), ("conv2", "conv2"), ("shortcut", "conv_sc")):
            for mine_part, part in (("weight", "weight"), ("bias", "bias"), ("u", "u0")):
                out[f"{ours}.{mine}.{mine_part}"] = f"{theirs}.{name}.{part}"
    out |= {f"fusion.norms.{i}.{part}": f"bn_up{i}.{part}" for i in range(3) for part in _BATCH_NORM}
    return out | {
        f"fusion.grow.{i}.{part}": f"conv_up{i + 1}.{part}" for i in (0, 1) for part in ("weight", "bias")
    }


def _decoder_names() -> dict[str, str]:
    """The authors' names of the decoder's tensors, by ours; Bae's own are the same."""
    pairs = {"decoder.project": "conv2", "decoder.predict": "out_conv_res8"}
    pairs |= {f"decoder.up.{i}.layers.{k}": f"up{i + 1}._net.{k}" for i in range(4) for k in (0, 1, 3, 4)}
    pairs |= {
        f"decoder.refine.{i}.{k}": f"out_conv_res{size}.{k}"
        for i, size in enumerate((4, 2, 1))
        for k in (0, 2, 4, 6)
    }
    return {f"{o}.{part}": f"{t}.{part}" for o, t in pairs.items() for part in ("weight", "bias")}


FUSION, DECODER = _fusion_names(), _decoder_names()
# Never run, misspelt as it is: a transformer that was tried and left in.
_DEAD = re.compile(r"(transfromer_decoder|mlp|to_k|to_q)\.")
# Of no use to a model: counts of batches, and singular values kept for a log.
_NOTES = re.compile(r".*\.(num_batches_tracked|sv0)")


@dataclass(frozen=True)
class Pair:
    """A head read from the authors' two files, and the names of the tensors that were left out."""

    head: BaeHead
    dropped: tuple[str, ...]


def read_pair(fusion: Path, decoder: Path, options: LoadOptions | None = None) -> Pair:
    """The head that two files hold.

    Raises:
        ModelError: one is damaged, holds code, lacks a tensor, or has one that is not known.
    """
    options = options or LoadOptions()
    first, dropped = _ours(read_file(fusion, options.dtype, options.meta), FUSION, fusion)
    second, more = _ours(decoder_tensors(read_file(decoder, options.dtype, options.meta)), DECODER, decoder)
    with damaged(fusion, "fusion network of Diff-2-in-1"), torch.device("meta"):
        widths = [first[f"fusion.join.{i}.weight"].shape[0] for i in range(3)]
        widths += [first[f"fusion.grow.{i}.weight"].shape[1] for i in (0, 1)]
        levels = [first[f"fusion.join.{i}.weight"].shape[1] for i in range(4)]
        head = BaeHead(levels, widths)
    for names, tensors, path in ((FUSION, first, fusion), (DECODER, second, decoder)):
        _check_shapes(head, tensors, names, path)
    load_strictly(head, {**first, **second}, fusion, options.dtype)
    dead = tuple(k for k in (*dropped, *more) if not _NOTES.fullmatch(k))
    if dead:
        _LOG.info(
            "%s: left out %d tensors of parts that are never run, the first %s", fusion, len(dead), dead[0]
        )
    return Pair(head.eval(), (*dropped, *more))


def decoder_tensors(tensors: Tensors) -> Tensors:
    """A decoder's tensors by their bare names; out of Bae's own file (``nyu.pt``) too, where an encoder is beside."""
    bare = {k.removeprefix("module."): v for k, v in tensors.items()}
    if any(k.startswith("decoder.") for k in bare):
        return {k.removeprefix("decoder."): v for k, v in bare.items() if not k.startswith("encoder.")}
    return bare


def put_bae_decoder(head: BaeHead, path: Path) -> None:
    """Let a head begin with the decoder of Bae's published file, which is of the same make, in place.

    Raises:
        ModelError: the file holds no such decoder, or one of other widths.
    """
    tensors, _ = _ours(decoder_tensors(read_file(path)), DECODER, path)
    _check_shapes(head, tensors, DECODER, path)
    like = next(head.decoder.parameters()).dtype
    load_strictly(head.decoder, {k.removeprefix("decoder."): v for k, v in tensors.items()}, path, like)


def _ours(theirs: Tensors, names: Mapping[str, str], where: Path) -> tuple[Tensors, tuple[str, ...]]:
    """Tensors by our names, and what was left out."""
    missing = [t for t in names.values() if t not in theirs]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelError(f"{where} lacks the tensor {missing[0]}{more}; is it the right checkpoint?")
    known = set(names.values())
    dropped = tuple(k for k in theirs if k not in known)
    strange = [k for k in dropped if not (_DEAD.match(k) or _NOTES.fullmatch(k))]
    if strange:
        raise ModelError(f"{where} has the unexpected tensor {strange[0]}; is it another model?")
    out = {}
    for ours, name in names.items():
        value = theirs[name]
        # Their networks of single pixels are convolutions of one dimension.
        out[ours] = value[..., None] if ".refine." in ours and value.ndim == 3 else value
    return {k: _flip_x(k, v) for k, v in out.items()}, dropped


def _flip_x(name: str, tensor: Tensor) -> Tensor:
    """A tensor of the decoder with the sign of x changed, which is exact; any other as it is."""
    if not (_COMPUTES_X.fullmatch(name) or _READS_X.fullmatch(name)):
        return tensor
    tensor = tensor.clone()
    # The coarser prediction, vector and kappa, follows the feature map's channels.
    x = tensor[:1] if _COMPUTES_X.fullmatch(name) else tensor[:, -4]
    x.neg_()
    return tensor


def _check_shapes(head: BaeHead, tensors: Tensors, names: Mapping[str, str], where: Path) -> None:
    expected = head.state_dict()
    for ours, theirs in names.items():
        shape, needed = tuple(tensors[ours].shape), tuple(expected[ours].shape)
        if shape != needed:
            raise ModelError(f"{where}: tensor {theirs} has shape {shape}; the head needs {needed}")


def official_tensors(head: BaeHead, completed_by: Tensors | None = None) -> tuple[Tensors, Tensors]:
    """A head, which predicts in the frame RUB, as the authors' two tables: of the fusion network and of the decoder.

    Args:
        head: of any widths.
        completed_by: a table of theirs, from which the parts that are never run are taken: their program insists on
            them. Without, the first table has all tensors in use, and their program reports others as missing.
    """
    state = {k: _flip_x(k, v.detach().cpu()) for k, v in head.state_dict().items()}
    fusion = {theirs: state[ours].clone() for ours, theirs in FUSION.items()}
    fusion |= {f"bn_up{i}.num_batches_tracked": torch.tensor(0) for i in range(3)}
    for name in [k for k in fusion if k.endswith(".u0")]:
        fusion[name.removesuffix("u0") + "sv0"] = torch.ones(1)
    fusion |= {k: v for k, v in (completed_by or {}).items() if _DEAD.match(k)}
    decoder = {}
    for ours, theirs in DECODER.items():
        value = state[ours]
        decoder[theirs] = (value[..., 0] if ".refine." in ours and value.ndim == 4 else value).clone()
    return fusion, decoder


def write_pair(head: BaeHead, fusion: Path, decoder: Path, completed_by: Path | None = None) -> None:
    """Write a head as the authors' two files; see `official_tensors`.

    Raises:
        FileExistsError: one is there.
    """
    for path in (fusion, decoder):
        if path.exists():
            raise FileExistsError(f"{path} exists; a checkpoint is not overwritten, choose another name")
    tables = official_tensors(head, None if completed_by is None else read_file(completed_by))
    for path, table in zip((fusion, decoder), tables, strict=True):
        with atomic_write(path) as part:
            torch.save(table, part)


@dataclass(frozen=True)
class Files:
    """What a folder of theirs holds: the two files, and Stable Diffusion's where it is there."""

    fusion: Path
    decoder: Path
    base: Path | None


def is_diff2in1_dir(folder: Path) -> bool:
    """Whether a folder without a description holds their two files."""
    if (folder / "model_index.json").exists():
        return False
    try:
        find_files(folder)
    except ModelError:
        return False
    return True


def find_files(folder: Path) -> Files:
    """The files of a folder, by their tensors; of several epochs the last, of teacher and student the teacher.

    Raises:
        ModelError: one of the two is missing.
    """
    found: dict[str, list[Path]] = {"fusion": [], "decoder": [], "base": []}
    paths = sorted(p for p in folder.glob("*") if p.suffix in (".pth", ".pt", ".ckpt", ".safetensors"))
    for path in paths:
        keys = set(read_file(path, meta=True))
        for part, key in (
            ("fusion", "low_feature_conv.0.weight"),
            ("decoder", "out_conv_res8.weight"),
            ("base", "model.diffusion_model.input_blocks.0.0.weight"),
        ):
            if key in keys:
                found[part].append(path)
    for part, name in (("fusion", "sn_ckpt"), ("decoder", "bae_ckpt")):
        if not found[part]:
            raise ModelError(f"{folder} has no file with the {part} network ({name}) of Diff-2-in-1")
    chosen = {part: max(those, key=_order) for part, those in found.items() if those}
    if _epoch(chosen["fusion"]) != _epoch(chosen["decoder"]):
        raise ModelError(
            f"{folder}: {chosen['fusion'].name} and {chosen['decoder'].name} are of different epochs; leave two in it"
        )
    return Files(chosen["fusion"], chosen["decoder"], chosen.get("base"))


def _order(path: Path) -> tuple[bool, int]:
    """The teacher before the student, whose files have an ``e`` in their names; then the last epoch."""
    return "_e_" not in path.stem, _epoch(path)


def _epoch(path: Path) -> int:
    number = re.search(r"(\d+)$", path.stem)
    return int(number[1]) if number else -1


_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def assemble(
    folder: Path, options: LoadOptions, base: str = "", tasks: Sequence[str] = ("normals",)
) -> tuple[StableDiffusion, dict[str, Head], list[Path]]:
    """The backbone, the head by task and the files read, of a folder with the two files.

    Stable Diffusion 1.5 is the folder's own ``model.ckpt`` where there is one, else a ``base``.

    Raises:
        ModelError: a part is missing or does not fit.
    """
    found = find_files(folder)
    pair = read_pair(found.fusion, found.decoder, options)
    files = [found.fusion, found.decoder]
    if found.base is None:
        home = fetch_base("sd15", _PARTS, base, options.variant)
        net = StableDiffusion(
            components.unet(home / "unet", options),
            components.vae(home / "vae", options),
            encoder := components.text_encoder(home / "text_encoder", options),
            read_tokenizer(home / "tokenizer", encoder),
            components.scheduler(home / "scheduler"),
        )
        files += [f for part in _PARTS[:3] for f in weight_files(home / part, options.variant)]
    else:
        # Their program uses the weights of the last step, not the EMA ones, and heads were trained on those.
        parts = read_ldm(found.base, options, ema=False)
        net = StableDiffusion(**{**parts, "tokenizer": _tokenizer(base)})
        if net.tokenizer is None and not options.meta:
            net.prompt_embeds[""] = _empty_prompt(net.text_encoder)
        files.append(found.base)
    levels = [sum(level) for level in net.levels]
    if levels != pair.head.config["levels"]:
        raise ModelError(
            f"{found.fusion} reads levels of {pair.head.config['levels']} channels, and the network beside it gives "
            f"{levels}; give another --base"
        )
    return net, dict.fromkeys(tasks, pair.head), files


def _tokenizer(base: str) -> Any:
    try:
        return read_tokenizer(fetch_base("sd15", ("tokenizer",), base) / "tokenizer")
    except ModelError:
        if base:
            raise
        return None


@torch.no_grad()
def _empty_prompt(text_encoder: Any) -> Tensor:
    """The embedding ``77 d`` of no words, whose tokens are known without a tokenizer: one begins, the others end."""
    config = text_encoder.config
    ids = torch.full((1, config.max_position_embeddings), 49407)
    ids[0, 0] = 49406
    return text_encoder(ids)[0][0].float()
