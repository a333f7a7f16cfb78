"""The image encoder beside the latent: unchanged networks without it, exact folding, round trips, training."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.nn.functional import conv2d

import world
from twofold.backbones.efficientnet import EfficientNetLite0, SameConv2d, fold_batch_norm
from twofold.backbones.encoders import IMAGE_ENCODERS
from twofold.backbones.image_encoder import ImageAdapter, ImageEncoder, pyramid_channels
from twofold.backbones.new import tiny
from twofold.checkpoints import ModelError, open_model, save_model
from twofold.checkpoints.settings import ModelSettings
from twofold.heads import make_head
from twofold.predict.config import OutputConfig
from twofold.predict.diffusion import DiffusionPredictor
from twofold.protocols import OneStep
from twofold.tasks import get_task
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
)
from twofold.train.initial import open_initial_model
from twofold.train.optimizer import make_optimizer
from twofold.train.run import run_recipe
from twofold.train.trainable import Denoiser


def small_adapter(backbone) -> ImageAdapter:
    torch.manual_seed(3)
    return ImageAdapter.for_unet(EfficientNetLite0().eval(), backbone.unet, backbone.stride)


@pytest.fixture
def backbone():
    made = tiny()
    made.image_adapter = small_adapter(made)
    return made.eval()


def denoise(backbone, image, maps, features=False):
    latent = backbone.encode(image * 2 - 1)
    text = backbone.embed(["depth map"]).expand(len(image), -1, -1)
    return backbone(latent, torch.ones(len(image)), text, features, None, maps)


def test_encoder_has_the_published_strides_and_size():
    encoder = EfficientNetLite0()
    maps = encoder(torch.rand(1, 3, 72, 104))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, -(-72 // s), -(-104 // s)) for c, s in zip(encoder.channels, (2, 4, 8, 16, 32), strict=True)
    ]
    # The published network has 4.65 M parameters, 1.28 M of the classifier, 0.41 M of the last convolution.
    assert sum(p.numel() for p in encoder.parameters()) == 2_939_120


@pytest.mark.parametrize("size", [(12, 16), (13, 15)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_same_padding_is_tensorflows(size, kernel, stride):
    conv = SameConv2d(4, 4, kernel, stride, groups=4)
    x = torch.randn(2, 4, *size)
    top, left = (max((-(-n // stride) - 1) * stride + kernel - n, 0) // 2 for n in size)
    # Far more padding than needed at the end, cut to the number of outputs that SAME has.
    padded = torch.nn.functional.pad(x, (left, kernel, top, kernel))
    expected = conv2d(padded, conv.weight, conv.bias, stride, groups=4)
    expected = expected[..., : -(-size[0] // stride), : -(-size[1] // stride)]
    torch.testing.assert_close(conv(x), expected)


def gradients(conv, x, dtype):
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        y = conv(x)
    return torch.autograd.grad(y.float().square().sum(), [x, *conv.parameters()])


def test_depthwise_gradients_in_bf16_are_those_of_fp32():
    torch.manual_seed(0)
    conv = SameConv2d(8, 8, 5, 2, groups=8)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(parameter.bfloat16())
    x = torch.randn(2, 8, 17, 20).bfloat16().float().requires_grad_()
    exact = gradients(conv, x, torch.float32)
    for found, expected in zip(gradients(conv, x, torch.bfloat16), exact, strict=True):
        assert found.dtype == torch.float32
        # The output is rounded to bf16 before it is squared: 2**-8 of its size.
        torch.testing.assert_close(found, expected, atol=float(expected.abs().max()) * 2**-7, rtol=0)


def test_folding_is_batch_normalisation_in_evaluation():
    torch.manual_seed(0)
    published: dict[str, torch.Tensor] = {}
    net: Any = EfficientNetLite0()

    def norm(name: str, n: int) -> None:
        published[f"{name}.weight"], published[f"{name}.bias"] = torch.rand(n) + 0.5, torch.randn(n) * 0.1
        published[f"{name}.running_mean"], published[f"{name}.running_var"] = (
            torch.randn(n) * 0.1,
            torch.rand(n) + 0.5,
        )

    published["_conv_stem.weight"] = torch.randn_like(net.stem.weight) * 0.1
    norm("_bn0", 32)
    for i, block in enumerate(net.blocks):
        parts = {"_expand_conv": (block.expand, "_bn0"), "_depthwise_conv": (block.depthwise, "_bn1")}
        for conv, (module, bn) in {**parts, "_project_conv": (block.project, "_bn2")}.items():
            if module is not None:
                published[f"_blocks.{i}.{conv}.weight"] = torch.randn_like(module.weight) * 0.1
                norm(f"_blocks.{i}.{bn}", len(module.weight))
    net.load_state_dict(fold_batch_norm(published))
    x = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    first = torch.nn.functional.pad((x - mean.view(3, 1, 1)) / std.view(3, 1, 1), (0, 1, 0, 1))
    stem = conv2d(first, published["_conv_stem.weight"], None, 2)
    norms = {
        k: published[f"_bn0.{k}"].view(-1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
    }
    deviation = (norms["running_var"] + 1e-3).sqrt()
    expected = (stem - norms["running_mean"]) / deviation * norms["weight"] + norms["bias"]
    torch.testing.assert_close(net.stem((x - mean.view(3, 1, 1)) / std.view(3, 1, 1)), expected)


def test_fresh_adapters_change_nothing_and_trained_ones_do(backbone):
    image = torch.rand(1, 3, 64, 64)
    plain = denoise(backbone, image, None).prediction
    maps = backbone.image_features(image)
    torch.testing.assert_close(denoise(backbone, image, maps).prediction, plain)
    torch.nn.init.normal_(backbone.image_adapter.adapters[0].weight)
    assert not torch.allclose(denoise(backbone, image, maps).prediction, plain, atol=1e-3)
    # No hook stays behind: without features the network is what it was.
    torch.testing.assert_close(denoise(backbone, image, None).prediction, plain)


def test_adapter_adds_each_map_to_the_down_block_of_its_stride(backbone):
    image, seen = torch.rand(1, 3, 64, 96), []
    maps = backbone.image_features(image)
    for adapter in backbone.image_adapter.adapters:
        torch.nn.init.normal_(adapter.weight)
    hooks = [
        block.register_forward_pre_hook(
            lambda _m, args, kw: seen.append(kw.get("hidden_states", args[0] if args else None)),
            with_kwargs=True,
        )
        for block in backbone.unet.down_blocks
    ]
    denoise(backbone, image, None)
    plain = list(seen)
    seen.clear()
    with_maps = denoise(backbone, image, maps)
    for hook in hooks:
        hook.remove()
    assert with_maps.prediction.shape[-2:] == (8, 12)
    adapter = backbone.image_adapter.adapters[0]
    # The test's hooks run first, so the first block's input is checked through what the adapter makes of stride 8.
    assert maps[2].shape[-2:] == plain[0].shape[-2:]
    assert adapter(maps[2]).shape == plain[0].shape


def test_pyramid_lists_encoder_and_decoding_path_by_stride(backbone):
    image = torch.rand(1, 3, 64, 96)
    found = denoise(backbone, image, backbone.image_features(image), "pyramid").features
    flat = [c for level in backbone.pyramid for c in level]
    assert [m.shape[1] for m in found] == flat
    sizes = [tuple(m.shape[-2:]) for m in found]
    per_level = []
    for level in backbone.pyramid:
        per_level.append(set(sizes[: len(level)]))
        sizes = sizes[len(level) :]
    assert per_level == [{(2, 3)}, {(4, 6)}, {(8, 12)}, {(16, 24)}, {(32, 48)}]
    assert pyramid_channels((192, 192, 128, 64), None) == ((192,), (192,), (128, 64))


def test_features_for_a_network_without_an_encoder_are_refused(backbone):
    image = torch.rand(1, 3, 64, 64)
    maps = backbone.image_features(image)
    with pytest.raises(ValueError, match="no image encoder"):
        denoise(tiny(), image, maps)
    with pytest.raises(ValueError, match="no image encoder"):
        DiffusionPredictor(
            tiny(),
            get_task("depth"),
            OneStep(),
            make_head("light", tiny(), 1),
            OutputConfig(image_features=True),
        )


def test_stride_without_a_map_is_refused():
    class Coarse(ImageEncoder):
        name, channels = "coarse", (4, 8)

        def forward(self, image):
            raise NotImplementedError

    with pytest.raises(ValueError, match="stride 8"):
        ImageAdapter.for_unet(Coarse(), tiny().unet, 8)


@pytest.mark.parametrize(
    ("task", "activation"),
    [("depth", "depth"), ("disparity", "disparity"), ("normals", "unit"), ("mask", "logit")],
)
def test_predictor_with_image_features(backbone, task, activation):
    found = get_task(task)
    torch.manual_seed(1)
    head = make_head("pyramid", backbone, found.out_channels, activation=activation).eval()
    torch.nn.init.normal_(backbone.image_adapter.adapters[1].weight, std=0.1)
    predictor = DiffusionPredictor(
        backbone, found, OneStep(), head, OutputConfig(image_features=True), size=0
    )
    images = [torch.rand(3, 64, 88), torch.rand(3, 60, 88)]
    together = predictor(images)
    for image, prediction in zip(images, together, strict=True):
        assert prediction.map.shape[-2:] == image.shape[-2:]
        torch.testing.assert_close(predictor(image).map, prediction.map, atol=1e-5, rtol=1e-4)
    if task == "normals":
        torch.testing.assert_close(together[0].map.norm(dim=0), torch.ones(64, 88))


def test_depth_and_disparity_endings_are_inverse_of_each_other(backbone):
    torch.manual_seed(1)
    depth = make_head("pyramid", backbone, 1, activation="depth").eval()
    disparity = make_head("pyramid", backbone, 1, activation="disparity").eval()
    disparity.load_state_dict(depth.state_dict())
    image = torch.rand(1, 3, 64, 64)
    features = denoise(backbone, image, backbone.image_features(image), "pyramid").features
    near, far = (h(torch.zeros(1, 4, 8, 8), features, backbone)[0, 0] for h in (disparity, depth))
    log = depth.values(features, backbone.stride)[0, 0]
    inside = (far.abs() < 0.999) & (near.abs() < 0.999)
    for found, expected in ((far, log.exp()), (near, (-log).exp())):
        x, y = found[inside], expected[inside]
        fit = torch.stack([x, torch.ones_like(x)], 1)
        rest = fit @ torch.linalg.lstsq(fit, y[:, None]).solution - y[:, None]
        assert float(rest.detach().abs().max()) < 1e-4 * float(y.detach().abs().max())


def test_checkpoint_keeps_encoder_adapters_and_heads(backbone, tmp_path):
    for adapter in backbone.image_adapter.adapters:
        torch.nn.init.normal_(adapter.weight)
    head = make_head("pyramid", backbone, 1, activation="depth")
    settings = ModelSettings(size=64).with_tasks(["depth"], OneStep(), "run", "pyramid", image_features=True)
    save_model(backbone, settings, tmp_path / "model", torch.float32, {"depth": head})
    opened = open_model(str(tmp_path / "model"))
    assert opened.settings.image_encoder == "efficientnet-lite0"
    image = torch.rand(3, 64, 64)
    before = DiffusionPredictor(
        backbone, get_task("depth"), OneStep(), head.eval(), opened.settings.tasks["depth"], 64
    )
    torch.testing.assert_close(opened.predictor("depth")(image).map, before(image).map)
    assert any("image_encoder" in str(f) for f in opened.files)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "os.system", "image encoder"),
        ("name", 3, "image encoder"),
        ("first", -1, "first"),
        ("first", "2", "first"),
        ("unet_channels", [16, -1, 16], "unet_channels"),
        ("unet_channels", [1 << 40] * 3, "unet_channels"),
        ("unet_channels", [8, 16, 16], "shape"),
    ],
)
def test_damaged_config_is_named(backbone, tmp_path, key, value, message):
    save_model(backbone, ModelSettings(size=64), tmp_path / "model", torch.float32)
    path = tmp_path / "model" / "image_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ModelError, match=message):
        open_model(str(tmp_path / "model"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoder")
    made = tiny()
    made.image_adapter = small_adapter(made)
    save_model(made, ModelSettings(name="tiny", size=64), root / "model", torch.float32)
    world.folder(root / "balls", 4)
    return Recipe(
        name="test",
        model=DenoiserConfig(
            init_from=str(root / "model"),
            head=HeadConfig(name="pyramid", options={"activation": "depth"}),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            sources=(Source(path=str(root / "balls")),),
            task_weights={"image": 1.0, "depth": 1.0},
            size=(64, 64),
        ),
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=0),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=2, batch_size=4),
    )


def adapter_weights(model) -> dict[str, torch.Tensor]:
    assert model.backbone.image_adapter is not None
    return model.backbone.image_adapter.state_dict()


@pytest.mark.parametrize("encoder", ["off", "frozen", "full"])
def test_a_recipe_selects_the_trained_parts_of_the_image_encoder(recipe, tmp_path, encoder):
    recipe = recipe.replace(model={"image_encoder": {"mode": encoder}})
    before = adapter_weights(open_model(recipe.model.init_from))
    records = list(run_recipe(recipe, tmp_path / "run"))
    opened = open_model(str(tmp_path / "run" / "checkpoint"))
    after = adapter_weights(opened)
    # Written in half precision: what has not been trained is only rounded.
    changed = {k for k in before if not torch.allclose(before[k].half().float(), after[k], atol=1e-6)}
    parts = {k.split(".")[0] for k in changed}
    assert parts == {"off": set(), "frozen": {"adapters"}, "full": {"adapters", "encoder"}}[encoder]
    assert opened.settings.tasks["depth"].image_features == (encoder != "off")
    assert opened.predictor("depth")(torch.rand(3, 64, 64)).map.isfinite().all()
    assert records[-1]["step"] == 2


def test_encoder_has_a_learning_rate_of_its_own(recipe):
    made = tiny()
    made.image_adapter = small_adapter(made)
    recipe = recipe.replace(model={"image_encoder": {"mode": "full", "lr": 1e-3}, "head": {"lr": 1e-1}})
    optimizer = make_optimizer(recipe, Denoiser(made, {}))
    rates = {id(p): g["scale"] * recipe.optimizer.lr for g in optimizer.param_groups for p in g["params"]}
    assert {round(rates[id(p)], 9) for p in made.image_adapter.encoder.parameters()} == {1e-3}
    assert {rates[id(p)] for p in made.image_adapter.adapters.parameters()} == {recipe.optimizer.lr}


def test_a_second_encoder_is_refused(recipe, monkeypatch):
    class Other(EfficientNetLite0):
        name = "other"

    monkeypatch.setitem(IMAGE_ENCODERS, "other", Other)
    with pytest.raises(ValueError, match=r"leave image_encoder\.name out"):
        open_initial_model(recipe.replace(model={"image_encoder": {"name": "other"}}))
    with pytest.raises(ValueError, match="known: efficientnet-lite0"):
        recipe.replace(model={"image_encoder": {"name": "resnet"}})
