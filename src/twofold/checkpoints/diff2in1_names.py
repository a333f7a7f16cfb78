"""The authors' names of the tensors of Diff-2-in-1's fusion network and decoder, by ours."""

from __future__ import annotations

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
