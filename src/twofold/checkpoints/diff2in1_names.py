"""Names of the tensors of Diff-2-in-1's fusion network and decoder: twofold's name -> the authors' name."""

from __future__ import annotations

_LEVELS = ("low", "mid", "high", "highest")
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def _fusion_names() -> dict[str, str]:
    out = {f"fusion.join.{i}.weight": f"{level}_feature_conv.0.weight" for i, level in enumerate(_LEVELS)}
    for i, level in enumerate(_LEVELS[1:]):
        block, released_block = f"fusion.mix.{i}", f"{level}_feature_mix_conv"
        for k in (1, 2):
            out[f"{block}.norm{k}.running_mean"] = f"{released_block}.stored_mean{k}"
            out[f"{block}.norm{k}.running_var"] = f"{released_block}.stored_var{k}"
        for layer, released in (("conv1", "conv1"), ("conv2", "conv2"), ("shortcut", "conv_sc")):
            for name, released_name in (("weight", "weight"), ("bias", "bias"), ("u", "u0")):
                out[f"{block}.{layer}.{name}"] = f"{released_block}.{released}.{released_name}"
    out |= {f"fusion.norms.{i}.{name}": f"bn_up{i}.{name}" for i in range(3) for name in _BATCH_NORM}
    return out | {
        f"fusion.grow.{i}.{name}": f"conv_up{i + 1}.{name}" for i in (0, 1) for name in ("weight", "bias")
    }


def _decoder_names() -> dict[str, str]:
    """Names of the tensors of the decoder; the decoder of Bae et al. has the same."""
    layers = {"decoder.project": "conv2", "decoder.predict": "out_conv_res8"}
    layers |= {f"decoder.up.{i}.layers.{k}": f"up{i + 1}._net.{k}" for i in range(4) for k in (0, 1, 3, 4)}
    layers |= {
        f"decoder.refine.{i}.{k}": f"out_conv_res{size}.{k}"
        for i, size in enumerate((4, 2, 1))
        for k in (0, 2, 4, 6)
    }
    return {
        f"{k}.{name}": f"{released}.{name}" for k, released in layers.items() for name in ("weight", "bias")
    }


FUSION, DECODER = _fusion_names(), _decoder_names()
