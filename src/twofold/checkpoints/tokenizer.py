"""Reads CLIP tokenizers from copies of their files that have only known entries.

transformers also applies other entries of ``tokenizer_config.json``: names of files, templates that it later writes to
files of those names, code from the hub. A CLIP tokenizer needs none of them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..environment import quiet_libraries
from .locate import fetch_base
from .strict import ModelError, damaged, read_json, read_text, wrong_value

_MAX_LENGTH = 8192  # tokens
_MAX_VOCABULARY = 1 << 20
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class Token(BaseModel):
    """A special token in the format of ``special_tokens_map.json`` and old configs."""

    model_config = ConfigDict(strict=True, extra="ignore")
    content: Annotated[str, Field(min_length=1, max_length=256)]


class _Settings(BaseModel):
    """The entries of ``tokenizer_config.json`` and ``special_tokens_map.json`` that are read."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    # transformers writes 1e30 if it does not know the length.
    model_max_length: Annotated[int, Field(ge=2)] | Annotated[float, Field(ge=2)] | None = None
    bos_token: Annotated[str, Field(min_length=1, max_length=256)] | Token | None = None
    eos_token: Annotated[str, Field(min_length=1, max_length=256)] | Token | None = None
    unk_token: Annotated[str, Field(min_length=1, max_length=256)] | Token | None = None
    pad_token: Annotated[str, Field(min_length=1, max_length=256)] | Token | None = None


def read_tokenizer(folder: Path, text_encoder: Any = None) -> Any:
    """Read a ``CLIPTokenizer``.

    Args:
        folder: folder with ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.
        text_encoder: the text encoder that uses it, to check that they are compatible.

    Raises:
        ModelError: a file is missing or damaged, or the vocabulary or the length exceeds the text encoder's.
    """
    from transformers import CLIPTokenizer

    if not folder.is_dir():
        raise ModelError(f"{folder} is missing; the checkpoint folder is incomplete, fetch it again")
    settings = _settings(folder)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        _copy_vocabulary(folder, copy)
        (copy / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        with damaged(folder, "folder of a tokenizer"), quiet_libraries():
            tokenizer = CLIPTokenizer.from_pretrained(copy, local_files_only=True)
    tokenizer.name_or_path = str(folder)
    if text_encoder is not None:
        _check_compatible(tokenizer, text_encoder.config, folder)
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    """The checked settings, with special tokens as strings."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if not path.exists():
            continue
        try:
            found = _Settings.model_validate(read_json(path))
        except ValidationError as error:
            raise ModelError(f"{path}: {wrong_value(error)}") from error
        for key in _TOKENS:
            token = getattr(found, key)
            if token is not None:
                settings[key] = token.content if isinstance(token, Token) else token
        if found.model_max_length is not None and found.model_max_length <= _MAX_LENGTH:
            settings["model_max_length"] = int(found.model_max_length)
    return {"model_max_length": 77, **settings}


def _copy_vocabulary(folder: Path, copy: Path) -> None:
    """Copy the vocabulary and the merges, from one file or from two, after a check."""
    path = folder / "tokenizer.json"
    if path.exists():
        content = read_json(path)
        model = content.get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        _check_vocabulary(vocabulary, path)
        (copy / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        return
    vocabulary = read_json(folder / "vocab.json")
    _check_vocabulary(vocabulary, folder / "vocab.json")
    (copy / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (copy / "merges.txt").write_text(read_text(folder / "merges.txt"), encoding="utf-8")


def _check_vocabulary(vocabulary: Any, path: Path) -> None:
    if not isinstance(vocabulary, dict) or not 0 < len(vocabulary) <= _MAX_VOCABULARY:
        raise ModelError(f"{path} has no vocabulary of at most {_MAX_VOCABULARY} tokens; fetch it again")
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < _MAX_VOCABULARY:
            raise ModelError(
                f"{path}: the token {token!r} has the number {number!r}; expected 0 to {_MAX_VOCABULARY - 1}"
            )


def _check_compatible(tokenizer: Any, config: Any, folder: Path) -> None:
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    if size > config.vocab_size:
        raise ModelError(
            f"{folder} has {size} tokens, and the text encoder beside it {config.vocab_size}; "
            "they belong to different models"
        )
    if tokenizer.model_max_length > config.max_position_embeddings:
        raise ModelError(
            f"{folder} pads prompts to {tokenizer.model_max_length} tokens, and the text encoder beside it reads "
            f"{config.max_position_embeddings}; they belong to different models"
        )


def base_tokenizer(family: str, base: str) -> Any:
    """The tokenizer of a base model, for single-file checkpoints, which have none.

    Args:
        family: key of `locate.BASES`.
        base: folder or hub id of a base model; empty for those of the family.

    Returns:
        The tokenizer. None if ``base`` is empty and no base model can be fetched; then encoding a prompt is an error.
    """
    try:
        return read_tokenizer(fetch_base(family, ("tokenizer",), base) / "tokenizer")
    except ModelError:
        if base:
            raise
        return None
