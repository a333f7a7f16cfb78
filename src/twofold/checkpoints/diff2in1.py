"""Reads and writes the files of Diff-2-in-1's fusion network and normals decoder, each a state dict.

The authors' programs save ``sn_ckpt`` (``checkpoint_<epoch>.pth``) and ``bae_ckpt`` (``checkpoint_bae_<epoch>.pth``);
together they are one `BaeHead`. A third of the first belongs to modules that are never run; these are dropped, with a
log message. The released networks predict vectors with x to the left, `BaeHead` with x to the right (RUB): the sign of
a few weights is changed when files are read and written.
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

# Weights whose first row outputs, or whose column reads, the x component of a vector.
_OUTPUT_X = re.compile(r"decoder\.(predict|refine\.\d\.6)\.(weight|bias)")
_INPUT_X = re.compile(r"decoder\.refine\.\d\.0\.weight")

# Modules that are never run (the misspelling is that of the released code).
_UNUSED_MODULES = re.compile(r"(transfromer_decoder|mlp|to_k|to_q)\.")
# Buffers that are not needed: batch counts, and singular values for logging.
_UNUSED_BUFFERS = re.compile(r".*\.(num_batches_tracked|sv0)")


@dataclass(frozen=True)
class LoadedHead:
    """A head read from the authors' two files, and the names of the dropped tensors."""

    head: BaeHead
    dropped: tuple[str, ...]


def read_head(fusion: Path, decoder: Path, options: LoadOptions | None = None) -> LoadedHead:
    """Read a head from the authors' two files.

    Raises:
        ModelError: a file is damaged, contains code, lacks a tensor, or has an unknown one.
    """
    options = options or LoadOptions()
    first, dropped = _renamed(read_file(fusion, options.dtype, options.meta), FUSION, fusion)
    second, more = _renamed(
        decoder_tensors(read_file(decoder, options.dtype, options.meta)), DECODER, decoder
    )
    with damaged(fusion, "fusion network of Diff-2-in-1"), torch.device("meta"):
        widths = [first[f"fusion.join.{i}.weight"].shape[0] for i in range(3)]
        widths += [first[f"fusion.grow.{i}.weight"].shape[1] for i in (0, 1)]
        levels = [first[f"fusion.join.{i}.weight"].shape[1] for i in range(4)]
        head = BaeHead(levels, widths)
    for names, tensors, path in ((FUSION, first, fusion), (DECODER, second, decoder)):
        _check_shapes(head, tensors, names, path)
    load_strictly(head, {**first, **second}, fusion, options.dtype)
    unused = tuple(k for k in (*dropped, *more) if not _UNUSED_BUFFERS.fullmatch(k))
    if unused:
        _LOG.info(
            "%s: dropped %d tensors of modules that are never run, the first %s",
            fusion,
            len(unused),
            unused[0],
        )
    return LoadedHead(head.eval(), (*dropped, *more))


def decoder_tensors(tensors: Tensors) -> Tensors:
    """The tensors of a decoder without prefixes; the file of Bae et al. (``nyu.pt``) also has an encoder."""
    bare = {k.removeprefix("module."): v for k, v in tensors.items()}
    if any(k.startswith("decoder.") for k in bare):
        return {k.removeprefix("decoder."): v for k, v in bare.items() if not k.startswith("encoder.")}
    return bare


def load_bae_decoder(head: BaeHead, path: Path) -> None:
    """Load the decoder that Bae et al. published, which has the same architecture, into a head, in place.

    Raises:
        ModelError: the file has no such decoder, or a decoder of other widths.
    """
    tensors, _ = _renamed(decoder_tensors(read_file(path)), DECODER, path)
    _check_shapes(head, tensors, DECODER, path)
    dtype = next(head.decoder.parameters()).dtype
    load_strictly(head.decoder, {k.removeprefix("decoder."): v for k, v in tensors.items()}, path, dtype)


def _renamed(released: Tensors, names: Mapping[str, str], where: Path) -> tuple[Tensors, tuple[str, ...]]:
    """The tensors of a released file by their names in twofold, and the names of the dropped tensors."""
    missing = [name for name in names.values() if name not in released]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelError(f"{where} lacks the tensor {missing[0]}{more}; is it the right checkpoint?")
    known = set(names.values())
    dropped = tuple(k for k in released if k not in known)
    unexpected = [k for k in dropped if not (_UNUSED_MODULES.match(k) or _UNUSED_BUFFERS.fullmatch(k))]
    if unexpected:
        raise ModelError(f"{where} has the unexpected tensor {unexpected[0]}; is it another model?")
    out = {}
    for key, name in names.items():
        value = released[name]
        # The released pixel-wise networks are 1-d convolutions.
        out[key] = value[..., None] if ".refine." in key and value.ndim == 3 else value
    return {k: _flip_x(k, v) for k, v in out.items()}, dropped


def _flip_x(name: str, tensor: Tensor) -> Tensor:
    """Negate the weights of x in a tensor of the decoder, which is lossless; return other tensors unchanged."""
    if not (_OUTPUT_X.fullmatch(name) or _INPUT_X.fullmatch(name)):
        return tensor
    tensor = tensor.clone()
    # The last four input channels are the coarser prediction: vector and kappa.
    x = tensor[:1] if _OUTPUT_X.fullmatch(name) else tensor[:, -4]
    x.neg_()
    return tensor


def _check_shapes(head: BaeHead, tensors: Tensors, names: Mapping[str, str], where: Path) -> None:
    expected = head.state_dict()
    for key, name in names.items():
        shape, needed = tuple(tensors[key].shape), tuple(expected[key].shape)
        if shape != needed:
            raise ModelError(f"{where}: tensor {name} has shape {shape}; the head needs {needed}")


def official_tensors(head: BaeHead, unused_from: Tensors | None = None) -> tuple[Tensors, Tensors]:
    """Convert a head, which predicts in the frame RUB, to the authors' two state dicts: fusion network and decoder.

    Args:
        head: a head of any widths.
        unused_from: a state dict of the authors' fusion network, from which the tensors of unused modules are copied.
            The authors' program requires them; without them it reports them as missing.
    """
    state = {k: _flip_x(k, v.detach().cpu()) for k, v in head.state_dict().items()}
    fusion = {name: state[key].clone() for key, name in FUSION.items()}
    fusion |= {f"bn_up{i}.num_batches_tracked": torch.tensor(0) for i in range(3)}
    for name in [k for k in fusion if k.endswith(".u0")]:
        fusion[name.removesuffix("u0") + "sv0"] = torch.ones(1)
    fusion |= {k: v for k, v in (unused_from or {}).items() if _UNUSED_MODULES.match(k)}
    decoder = {}
    for key, name in DECODER.items():
        value = state[key]
        decoder[name] = (value[..., 0] if ".refine." in key and value.ndim == 4 else value).clone()
    return fusion, decoder


def write_head(head: BaeHead, fusion: Path, decoder: Path, unused_from: Path | None = None) -> None:
    """Write a head as the authors' two files; see `official_tensors`.

    Raises:
        FileExistsError: one of the files exists.
    """
    for path in (fusion, decoder):
        if path.exists():
            raise FileExistsError(f"{path} exists; a checkpoint is not overwritten, choose another name")
    state_dicts = official_tensors(head, None if unused_from is None else read_file(unused_from))
    for path, state_dict in zip((fusion, decoder), state_dicts, strict=True):
        with atomic_write(path) as temporary:
            torch.save(state_dict, temporary)
