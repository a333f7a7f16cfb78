"""Names of Stable Diffusion's tensors in CompVis' files, from those in diffusers' folders."""

from __future__ import annotations

import re

Shapes = dict[str, tuple[int, ...]]

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def unet(key: str) -> str:
    """One tensor of the U-Net."""
    fixed = {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    }  # fmt: skip
    stem, _, kind = key.rpartition(".")
    if stem in fixed:
        return f"{fixed[stem]}.{kind}"
    found = re.match(
        r"(down_blocks|up_blocks)\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", key
    )
    if found:
        side, block, part, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        if side == "down_blocks":
            place = f"input_blocks.{3 * block + layer + 1}"
            if part == "downsamplers":
                return f"input_blocks.{3 * block + 3}.0.op.{kind}"
        else:
            place = f"output_blocks.{3 * block + layer}"
            if part == "upsamplers":
                return f"output_blocks.{3 * block + 2}.{2 if block else 1}.conv.{kind}"
        return f"{place}.{0 if part == 'resnets' else 1}.{_inner(part, rest)}"
    middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key)
    assert middle is not None, key
    part, index, rest = middle.groups()
    return f"middle_block.{2 * int(index) if part == 'resnets' else 1}.{_inner(part, rest)}"


def _inner(part: str, rest: str) -> str:
    if part == "attentions":
        return rest
    layer, _, kind = rest.rpartition(".")
    return f"{_RESNET[layer]}.{kind}"


def vae(key: str) -> str:
    """One tensor of the autoencoder, its attention under the old names."""
    for now, before in (
        ("query", "q"),
        ("key", "k"),
        ("value", "v"),
        ("proj_attn", "proj_out"),
        ("group_norm", "norm"),
    ):
        key = key.replace(f"mid_block.attentions.0.{now}.", f"mid.attn_1.{before}.")
    key = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", key)
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)\.", r"down.\1.block.\2.", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}.", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{3 - int(m[1])}.upsample.", key)
    return key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def text(names: Shapes, second: bool) -> Shapes:
    """All tensors of the text encoder: CLIP's own names in 1.x, OpenCLIP's in 2.x, with what is stored and not used."""
    bare = {k.removeprefix("text_model."): v for k, v in names.items()}
    if not second:
        out = {f"cond_stage_model.transformer.text_model.{k}": v for k, v in bare.items()}
        return out | {"cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77)}
    out, prefix = {}, "cond_stage_model.model."
    table = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
    }  # fmt: skip
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    for key, shape in bare.items():
        if key in table:
            out[prefix + table[key]] = shape
            continue
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", key)
        assert found is not None, key
        index, layer, kind = found.groups()
        block = f"{prefix}transformer.resblocks.{index}."
        if layer in inner:
            out[f"{block}{inner[layer]}.{kind}"] = shape
        elif layer == "self_attn.q_proj":
            out[f"{block}attn.in_proj_{kind}"] = (3 * shape[0], *shape[1:])
    out |= {k.replace("resblocks.0.", "resblocks.23."): v for k, v in out.items() if "resblocks.0." in k}
    return out | {f"{prefix}text_projection": (1024, 1024), f"{prefix}logit_scale": ()}
