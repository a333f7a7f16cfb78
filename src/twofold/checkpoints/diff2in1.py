"""Diff-2-in-1's files: a fusion network and a decoder of normals, each a bare table of tensors, and Stable Diffusion.

The authors' programs save ``sn_ckpt`` (``checkpoint_<epoch>.pth``) and ``bae_ckpt`` (``checkpoint_bae_<epoch>.pth``);
together they are one `BaeHead`. A third of the first is of parts that are never run; they are left out and named.
They predict vectors with x to the left, `BaeHead` with x to the right (RUB): the two differ by the sign of a few
weights, which is changed when files are read and written.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..heads.bae import BaeHead
from ..io import atomic_write
from .components import LoadOptions
from .diff2in1_names import DECODER, FUSION
from .strict import ModelError, Tensors, damaged, load_strictly
from .weights import read_file

_LOG = logging.getLogger(__name__)

# Weights whose row outputs, or whose column reads, the x component of a vector.
_COMPUTES_X = re.compile(r"decoder\.(predict|refine\.\d\.6)\.(weight|bias)")
_READS_X = re.compile(r"decoder\.refine\.\d\.0\.weight")


# Parts that are never run (the misspelling is that of the released code).
_DEAD = re.compile(r"(transfromer_decoder|mlp|to_k|to_q)\.")
# Buffers that are not needed: batch counts, and singular values for logging.
_NOTES = re.compile(r".*\.(num_batches_tracked|sv0)")


@dataclass(frozen=True)
class Pair:
    """A head read from the authors' two files, and the names of the tensors that were dropped."""

    head: BaeHead
    dropped: tuple[str, ...]


def read_pair(fusion: Path, decoder: Path, options: LoadOptions | None = None) -> Pair:
    """Read a head from the authors' two files.

    Raises:
        ModelError: a file is damaged, contains code, lacks a tensor, or has an unknown one.
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
    """A decoder's tensors without prefixes; also from Bae's file (``nyu.pt``), which includes an encoder."""
    bare = {k.removeprefix("module."): v for k, v in tensors.items()}
    if any(k.startswith("decoder.") for k in bare):
        return {k.removeprefix("decoder."): v for k, v in bare.items() if not k.startswith("encoder.")}
    return bare


def put_bae_decoder(head: BaeHead, path: Path) -> None:
    """Load the decoder of Bae's published file, which has the same architecture, into a head, in place.

    Raises:
        ModelError: the file holds no such decoder, or one of other widths.
    """
    tensors, _ = _ours(decoder_tensors(read_file(path)), DECODER, path)
    _check_shapes(head, tensors, DECODER, path)
    like = next(head.decoder.parameters()).dtype
    load_strictly(head.decoder, {k.removeprefix("decoder."): v for k, v in tensors.items()}, path, like)


def _ours(theirs: Tensors, names: Mapping[str, str], where: Path) -> tuple[Tensors, tuple[str, ...]]:
    """Tensors by the names in twofold, and the names of the dropped ones."""
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
        # The released pixel-wise networks are 1-d convolutions.
        out[ours] = value[..., None] if ".refine." in ours and value.ndim == 3 else value
    return {k: _flip_x(k, v) for k, v in out.items()}, dropped


def _flip_x(name: str, tensor: Tensor) -> Tensor:
    """Negate the weights of x in a tensor of the decoder, which is exact; other tensors are unchanged."""
    if not (_COMPUTES_X.fullmatch(name) or _READS_X.fullmatch(name)):
        return tensor
    tensor = tensor.clone()
    # The last four input channels are the coarser prediction: vector and kappa.
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
    """Convert a head, which predicts in the frame RUB, to the authors' two state dicts: fusion network and decoder.

    Args:
        head: of any widths.
        completed_by: a state dict of the authors, from which unused parts are copied, because their program requires
            them. Without it, the first state dict has only the used tensors, and their program reports the others as
            missing.
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
        FileExistsError: one of the files exists.
    """
    for path in (fusion, decoder):
        if path.exists():
            raise FileExistsError(f"{path} exists; a checkpoint is not overwritten, choose another name")
    tables = official_tensors(head, None if completed_by is None else read_file(completed_by))
    for path, table in zip((fusion, decoder), tables, strict=True):
        with atomic_write(path) as part:
            torch.save(table, part)
