"""Low-rank weights in files: alpha is read in every form, and never assumed where it is not known."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from twofold.backbones import new
from twofold.checkpoints import ModelError, ModelSettings, components, open_model, save_model
from twofold.checkpoints.components import LoadOptions
from twofold.checkpoints.ldm import _use_ema
from twofold.checkpoints.lora import AdapterConfig, DefaultAlpha, merge, merge_file, merge_peft
from twofold.checkpoints.weights import read_file
from twofold.protocols import OneStep

RANK, WHERE = 2, Path("x")
Q, OUT = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
)


@pytest.fixture
def base() -> dict[str, Tensor]:
    return {
        f"{Q}.weight": torch.randn(6, 8),
        f"{OUT}.weight": torch.randn(8, 6),
        f"{OUT}.bias": torch.randn(8),
    }


def old(layer: str) -> str:
    stem, part = layer.rsplit(".to_", 1)
    return f"{stem}.processor.to_{part.split('.')[0]}_lora"


# Of a layer, the names of its two halves and of its alpha in each form that is in use.
FORMS: dict[str, Any] = {
    "old processors": lambda m: (f"{old(m)}.down.weight", f"{old(m)}.up.weight", f"{old(m)}.alpha"),
    "old processors of a pipeline": lambda m: tuple(
        f"unet.{old(m)}.{end}" for end in ("down.weight", "up.weight", "alpha")
    ),
    "kohya": lambda m: tuple(
        f"lora_unet_{m.replace('.', '_')}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")
    ),
    "diffusers": lambda m: (f"unet.{m}.lora.down.weight", f"unet.{m}.lora.up.weight", f"unet.{m}.alpha"),
    "diffusers in peft's names": lambda m: (
        f"unet.{m}.lora_A.weight",
        f"unet.{m}.lora_B.weight",
        f"unet.{m}.alpha",
    ),
    "peft": lambda m: tuple(
        f"base_model.model.{m}.{end}" for end in ("lora_A.weight", "lora_B.weight", "alpha")
    ),
    "peft in the network": lambda m: (
        f"{m}.lora_A.default.weight",
        f"{m}.lora_B.default.weight",
        f"{m}.alpha",
    ),
}


def halves(form: str, layer: str, base: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, str]:
    """The two tensors of a layer, their product, and the key of alpha."""
    out, width = base[f"{layer}.weight"].shape
    down, up = torch.randn(RANK, width), torch.randn(out, RANK)
    first, second, alpha = FORMS[form](layer)
    return {first: down, second: up}, up @ down, alpha


@pytest.mark.parametrize("form", FORMS)
def test_alpha_is_read_of_every_layer(base, form):
    q, product_q, alpha_q = halves(form, Q, base)
    out, product_out, alpha_out = halves(form, OUT, base)
    lora = {**q, **out, alpha_q: torch.tensor(4.0), alpha_out: torch.tensor([0.5])}
    found = merge(base, lora, WHERE, None, DefaultAlpha())
    torch.testing.assert_close(found[f"{Q}.weight"], base[f"{Q}.weight"] + 4 / RANK * product_q)
    torch.testing.assert_close(found[f"{OUT}.weight"], base[f"{OUT}.weight"] + 0.5 / RANK * product_out)
    assert torch.equal(found[f"{OUT}.bias"], base[f"{OUT}.bias"])
    shapes = {k: v.to("meta") for k, v in lora.items()}
    assert (
        merge({k: v.to("meta") for k, v in base.items()}, shapes, WHERE, None, DefaultAlpha()).keys()
        == base.keys()
    )


@pytest.mark.parametrize("form", FORMS)
def test_without_alpha_it_is_known_stated_or_refused(base, form):
    lora, product, _ = halves(form, Q, base)
    weight = base[f"{Q}.weight"]
    if form.startswith("old"):  # whose scale is 1 by definition
        torch.testing.assert_close(
            merge(base, lora, WHERE, None, DefaultAlpha())[f"{Q}.weight"], weight + product
        )
    else:
        with pytest.raises(ModelError, match=r"--lora-alpha N.*rank is 2"):
            merge(base, lora, WHERE, None, DefaultAlpha())
        known = merge(base, lora, WHERE, None, DefaultAlpha(equals_rank=True))
        torch.testing.assert_close(known[f"{Q}.weight"], weight + product)
    stated = merge(base, lora, WHERE, None, DefaultAlpha(alpha=8.0))
    torch.testing.assert_close(stated[f"{Q}.weight"], weight + 8 / RANK * product)


def test_the_config_of_peft_is_followed_as_peft_follows_it(tmp_path):
    """peft computes the effect of its adapter on a network."""
    from peft import LoraConfig, get_peft_model

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.ModuleDict({"to_q": torch.nn.Linear(8, 6), "to_k": torch.nn.Linear(8, 6)})
            self.conv = torch.nn.Conv2d(3, 4, 3)

    for rslora in (False, True):
        torch.manual_seed(0)
        net = Net()
        base = {k: v.clone() for k, v in net.state_dict().items()}
        config = LoraConfig(
            r=4, lora_alpha=6, target_modules=["to_q", "to_k", "conv"], rank_pattern={"to_k": 2}, use_rslora=rslora,
            alpha_pattern={"first.to_k": 3, "^conv": 1}, init_lora_weights=False,
        )  # fmt: skip
        made = get_peft_model(net, config)
        folder = tmp_path / str(rslora)
        made.save_pretrained(folder)
        expected = made.merge_and_unload().state_dict()
        path = folder / "adapter_model.safetensors"
        found = merge_file(base, read_file(path), path, DefaultAlpha())
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value)
        scale = AdapterConfig.model_validate(
            {**json.loads((folder / "adapter_config.json").read_text())}
        ).scale("first.to_k", 2, path)
        assert scale == pytest.approx(3 / math.sqrt(2) if rslora else 1.5)


def test_metadata_of_diffusers_is_read(base, tmp_path):
    lora, product, _ = halves("diffusers in peft's names", Q, base)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    output = {
        "unet.r": RANK,
        "unet.lora_alpha": 6,
        "unet.target_modules": ["to_q"],
        "text_encoder.lora_alpha": 1,
    }
    save_file(lora, path, {"format": "pt", "lora_adapter_metadata": json.dumps(output)})
    found = merge_file(base, read_file(path), path, DefaultAlpha())
    torch.testing.assert_close(found[f"{Q}.weight"], base[f"{Q}.weight"] + 3 * product)


def test_convolutions_are_merged(base):
    base = {"conv_in.weight": torch.randn(5, 3, 3, 3), "proj_in.weight": torch.randn(5, 3, 1, 1)}
    lora = {
        "lora_unet_conv_in.lora_down.weight": torch.randn(2, 3, 3, 3),
        "lora_unet_conv_in.lora_up.weight": torch.randn(5, 2, 1, 1), "lora_unet_conv_in.alpha": torch.tensor(1.0),
        "lora_unet_proj_in.lora_down.weight": torch.randn(2, 3),
        "lora_unet_proj_in.lora_up.weight": torch.randn(5, 2), "lora_unet_proj_in.alpha": torch.tensor(2.0),
    }  # fmt: skip
    found = merge(base, lora, WHERE, None, DefaultAlpha())
    down, up = lora["lora_unet_conv_in.lora_down.weight"], lora["lora_unet_conv_in.lora_up.weight"]
    x = torch.randn(1, 3, 7, 7)
    both = torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, down), up) / 2
    torch.testing.assert_close(
        torch.nn.functional.conv2d(x, found["conv_in.weight"]),
        torch.nn.functional.conv2d(x, base["conv_in.weight"]) + both, rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    flat = lora["lora_unet_proj_in.lora_up.weight"] @ lora["lora_unet_proj_in.lora_down.weight"]
    torch.testing.assert_close(found["proj_in.weight"][..., 0, 0], base["proj_in.weight"][..., 0, 0] + flat)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_te_text_model_encoder_layers_0.lora_down.weight": torch.ones(2, 8)}, "lora_te_text"),
        ({f"{Q}.lora_magnitude_vector": torch.ones(6)}, "unexpected tensor"),
        ({f"{Q}.lora_mid.weight": torch.ones(2, 2, 3, 3)}, "unexpected tensor"),
        ({f"{Q}.alpha": torch.tensor(float("nan"))}, "alpha is a number above 0"),
        ({f"{Q}.alpha": torch.tensor(-1.0)}, "alpha is a number above 0"),
        ({f"{Q}.alpha": torch.ones(3)}, "alpha is one number"),
        ({f"{Q}.lora_A.default.weight": torch.ones(0, 8)}, "has no rank"),
        ({f"{Q}.lora_A.default.weight": torch.ones(2, 8, 1)}, "cannot be added"),
        ({f"{Q}.lora_A.default.weight": torch.ones(2, 8).int()}, "cannot be added"),
        ({f"{Q}.lora_A.default.weight": torch.ones(2, 7)}, "cannot be added"),
        ({f"{Q}.lora_A.other.weight": torch.ones(2, 8)}, "for the same layer"),
        (
            {f"{OUT}.lora_A.other.weight": torch.ones(2, 6), f"{OUT}.lora_B.other.weight": torch.ones(8, 2)},
            "default, other",
        ),
        ({f"unet.{Q}.lora.down.weight": torch.ones(2, 8)}, "for the same layer"),
        ({f"{OUT}.lora_A.default.weight": torch.ones(2, 6)}, r"lacks .*lora_B"),
        ({"nowhere.lora_A.weight": torch.ones(2, 6), "nowhere.lora_B.weight": torch.ones(2, 2)}, "no nowhere.weight"),
    ],
    ids=range(15),
)  # fmt: skip
def test_what_cannot_be_followed_is_refused(base, change, message):
    lora, _, _ = halves("peft in the network", Q, base)
    with pytest.raises(ModelError, match=message):
        merge(base, {**lora, **change}, WHERE, None, DefaultAlpha(equals_rank=True))


@pytest.mark.parametrize(
    "change",
    [
        {"lora_alpha": "4"}, {"lora_alpha": None}, {"lora_alpha": 0}, {"lora_alpha": True}, {"use_dora": True},
        {"lora_alpha": 1e300}, {"alpha_pattern": {"to_[qk]": 3}}, {"alpha_pattern": {"(a+)+$": 3}}, {"r": 7},
        {"alpha_pattern": [1]},
        {"rank_pattern": {"to_q": 9}}, {"fan_in_fan_out": True}, {"lora_bias": True}, {"use_rslora": "yes"},
    ],
    ids=str,
)  # fmt: skip
def test_configs_that_cannot_be_followed_are_refused(base, change, tmp_path):
    lora, product, _ = halves("peft", Q, base)
    path = tmp_path / "adapter_model.safetensors"
    save_file(lora, path)
    output = {"r": RANK, "lora_alpha": 4, "use_rslora": None, "alpha_pattern": {}, "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(output))
    found = merge_file(base, read_file(path), path, DefaultAlpha(alpha=100.0))
    torch.testing.assert_close(found[f"{Q}.weight"], base[f"{Q}.weight"] + 2 * product)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**output, **change}))
    with pytest.raises(ModelError, match=r"adapter_(config|model)"):
        merge_file(base, read_file(path), path, DefaultAlpha())


def test_alpha_of_a_complete_model_is_stored_or_passed(tmp_path, capsys):
    """A model whose U-Net was saved with its additions, through the folder, Python and the command."""
    from twofold.cli.main import run

    settings = ModelSettings(name="tiny", size=32).with_tasks(["depth"], OneStep(), "none")
    save_model(new.tiny(), settings, tmp_path / "model", torch.float32)
    file = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    plain = load_file(file)
    key = next(k for k in plain if k.endswith("attn1.to_q.weight"))
    layer, weight = key.removesuffix(".weight"), plain.pop(key)
    down, up = torch.randn(RANK, weight.shape[1]), torch.randn(weight.shape[0], RANK)
    names = {
        f"{layer}.base_layer.weight": weight,
        f"{layer}.lora_A.default.weight": down,
        f"{layer}.lora_B.default.weight": up,
    }
    save_file({**plain, **names}, file)
    with pytest.raises(ModelError, match="--lora-alpha"):
        open_model(tmp_path / "model")
    assert run(["convert-checkpoint", str(tmp_path / "model"), str(tmp_path / "out")]) == 2
    assert "--lora-alpha" in capsys.readouterr().err
    more = ["--lora-alpha", "6", "--dtype", "float32"]
    assert run(["convert-checkpoint", str(tmp_path / "model"), str(tmp_path / "out"), *more]) == 0
    expected = weight + 3 * up @ down
    for model in (open_model(tmp_path / "out"), open_model(tmp_path / "model", lora_alpha=6)):
        torch.testing.assert_close(model.backbone.unet.state_dict()[key], expected)
    (tmp_path / "model" / "unet" / "adapter_config.json").write_text(
        json.dumps({"r": RANK, "lora_alpha": 10})
    )
    found = components.unet(tmp_path / "model" / "unet", LoadOptions()).state_dict()
    torch.testing.assert_close(found[key], weight + 5 * up @ down)
    for alpha in (0, -1, float("nan"), 1e9):
        with pytest.raises(ModelError, match="lora_alpha is"):
            open_model(tmp_path / "out", lora_alpha=alpha)


def test_a_network_without_additions_needs_no_alpha(base):
    assert merge_peft(base, WHERE, DefaultAlpha()) is base


# ---- averaged weights of single files


def ldm(*names: str) -> dict[str, Tensor]:
    return {f"model.diffusion_model.{name}": torch.randn(3) for name in names}


def test_averaged_weights_are_used_where_they_are_whole():
    plain = {**ldm("input_blocks.0.0.weight", "out.2.bias"), "first_stage_model.x": torch.randn(3)}
    average = {
        "model_ema.diffusion_modelinput_blocks00weight": torch.randn(3),
        "model_ema.diffusion_modelout2bias": torch.randn(3),
    }
    counts = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    with pytest.warns(UserWarning, match=r"x: its averaged weights \(EMA\) are used"):
        found = _use_ema({**plain, **average, **counts}, WHERE)
    assert found.keys() == plain.keys()
    assert torch.equal(
        found["model.diffusion_model.input_blocks.0.0.weight"],
        average["model_ema.diffusion_modelinput_blocks00weight"],
    )
    assert torch.equal(
        found["model.diffusion_model.out.2.bias"], average["model_ema.diffusion_modelout2bias"]
    )
    assert torch.equal(found["first_stage_model.x"], plain["first_stage_model.x"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _use_ema({**plain, **counts}, WHERE).keys() == plain.keys()
    lost = dict(list(average.items())[:1])
    with pytest.raises(
        ModelError, match=r"a part of its U-Net only: it lacks model_ema\.diffusion_modelout2bias"
    ):
        _use_ema({**plain, **lost}, WHERE)
    with pytest.raises(ModelError, match=r"also has model_ema\.diffusion_modelother"):
        _use_ema({**plain, **average, "model_ema.diffusion_modelother": torch.ones(1)}, WHERE)
