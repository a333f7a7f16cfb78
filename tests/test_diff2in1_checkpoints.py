"""Diff-2-in-1's files: every tensor has its place, and what comes out is what went in."""

import json
import os
from copy import deepcopy

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

import layouts
import official
from twofold import load
from twofold.backbones import new
from twofold.backbones.stable_diffusion import StableDiffusion, save_components
from twofold.checkpoints import ModelError, open_model
from twofold.checkpoints.diff2in1 import (
    decoder_tensors,
    load_bae_decoder,
    official_tensors,
    read_head,
    write_head,
)
from twofold.checkpoints.diff2in1_folder import find_files
from twofold.checkpoints.diff2in1_names import DECODER, FUSION
from twofold.heads import BaeHead
from twofold.heads.fusion import by_level
from twofold.protocols import OneStep

WIDTHS = (128, 16, 16, 8, 8)


def small():
    """A backbone of four levels of two layers, as Stable Diffusion has them, and the sums of its levels."""
    tiny = new.tiny()
    unet = UNet2DConditionModel(**{**tiny.unet.config, "layers_per_block": 2})
    net = StableDiffusion(unet, tiny.vae, tiny.text_encoder, tiny.tokenizer, new.MINIATURE_SCHEDULER)
    return net.eval(), tuple(sum(level) for level in net.levels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What its program leaves, of test size, and a Stable Diffusion beside."""
    root = tmp_path_factory.mktemp("official")
    net, levels = small()
    save_components(net, root / "base", torch.float32)
    (root / "run").mkdir()
    for epoch in (5, 45):
        table = official.filled(official.fusion(levels, WIDTHS, dead=False))
        table |= {
            "to_k.weight": torch.ones(2, 2),
            "mlp.layers.0.weight": torch.ones(2),
            "bn_up0.bias": table["bn_up0.bias"] + epoch,
        }
        torch.save(table, root / "run" / f"checkpoint_{epoch}.pth")
        torch.save(official.filled(official.decoder(WIDTHS)), root / "run" / f"checkpoint_bae_{epoch}.pth")
    torch.save(table, root / "run" / "checkpoint_e_45.pth")
    return root


def test_our_names_are_all_of_theirs_but_what_is_never_used():
    """71 tensors of the fusion network that are used, 12 of them of no use to a model, and 60 of the decoder."""
    notes = [k for k in official.fusion() if k.endswith(("sv0", "num_batches_tracked"))]
    assert sorted([*FUSION.values(), *notes]) == sorted(official.fusion())
    assert len(official.fusion()) == 71
    assert len(notes) == 12
    assert sorted(DECODER.values()) == sorted(official.decoder())
    assert len(DECODER) == 60


def test_at_full_size_it_has_the_published_numbers_of_parameters():
    with torch.device("meta"):
        head = BaeHead()
    assert sum(p.numel() for p in head.decoder.parameters()) == 44_081_552
    assert round(sum(p.numel() for p in head.fusion.parameters()) / 1e6, 2) == 21.92
    ours = layouts.shapes(head)
    for names, shapes in ((FUSION, official.fusion()), (DECODER, official.decoder())):
        for own, reference in names.items():
            assert ours[own][: len(shapes[reference])] == shapes[reference]
    assert set(ours) == {*FUSION, *DECODER}


def test_what_was_read_is_written_again(folder, tmp_path):
    run = folder / "run"
    pair = read_head(run / "checkpoint_45.pth", run / "checkpoint_bae_45.pth")
    assert {"to_k.weight", "mlp.layers.0.weight"} < set(pair.dropped)
    out = tmp_path / "sn.pth", tmp_path / "bae.pth"
    write_head(pair.head, *out, unused_from=run / "checkpoint_45.pth")
    for path, name in zip(out, ("checkpoint_45.pth", "checkpoint_bae_45.pth"), strict=True):
        before, after = (torch.load(p, weights_only=True) for p in (run / name, path))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
    with pytest.raises(FileExistsError, match=r"sn\.pth exists"):
        write_head(pair.head, *out)


def test_a_folder_opens_with_the_teacher_of_the_last_epoch(folder):
    found = find_files(folder / "run")
    assert (found.fusion.name, found.decoder.name) == ("checkpoint_45.pth", "checkpoint_bae_45.pth")
    model = open_model(str(folder / "run"), base=str(folder / "base"))
    assert model.tasks == ("normals",)
    assert model.settings.tasks["normals"].frame == "RUB"
    assert model.heads["normals"].get_parameter("fusion.norms.0.bias")[0] > 40
    with torch.no_grad():
        output = model.predictor()(torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0)), size=0)
    assert output.map.shape == (3, 40, 56)
    torch.testing.assert_close(output.map.norm(dim=0), torch.ones(40, 56))
    assert output.frame == "RUB"
    assert output.uncertainty is not None
    assert 0 < output.uncertainty.min() <= output.uncertainty.max() <= 0.5


def test_vectors_are_turned_from_left_to_right(folder):
    """The files predict x to the left. A head with their weights unchanged predicts the same vectors with x negated."""
    run = folder / "run"
    turned = read_head(run / "checkpoint_45.pth", run / "checkpoint_bae_45.pth").head
    plain = deepcopy(turned)
    tables = {**torch.load(run / "checkpoint_45.pth"), **torch.load(run / "checkpoint_bae_45.pth")}
    state = plain.state_dict()
    plain.load_state_dict({k: tables[n].view_as(state[k]) for k, n in (FUSION | DECODER).items()})
    net, _ = small()
    rng = torch.Generator().manual_seed(0)
    maps = [
        torch.rand(1, c, 4 * 2**k, 4 * 2**k, generator=rng)
        for k, level in enumerate(net.levels)
        for c in level
    ]
    with torch.no_grad():
        ours, reference = (
            head.forward_with_uncertainty(torch.empty(0), tuple(maps), net) for head in (turned, plain)
        )
    torch.testing.assert_close(ours[0], reference[0] * torch.tensor([-1.0, 1.0, 1.0])[:, None, None])
    torch.testing.assert_close(ours[1], reference[1])
    with torch.no_grad():  # the first resolution has little influence on the last: each is compared
        stages = [head.decoder(head.fusion(by_level(tuple(maps), net))) for head in (turned, plain)]
    for ours_at, theirs_at in zip(*stages, strict=True):
        torch.testing.assert_close(ours_at, theirs_at * torch.tensor([-1.0, 1.0, 1.0, 1.0])[:, None, None])
    assert reference[0][:, 0].abs().mean() > 0.05
    model = open_model(str(run), base=str(folder / "base"))
    image = torch.rand(3, 32, 32, generator=rng)
    torch.testing.assert_close(
        model.predictor().predict_images(image[None])[0], model.predictor()(image, size=0).map
    )


def test_official_settings_resize_to_squares_and_add_noise(folder):
    predictor = load(str(folder / "run"), method="diff2in1-normals-official", base=str(folder / "base"))
    assert (predictor.size, predictor.edge) == (512, "both")
    predictor.size = 64
    image = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    first, again, other = (predictor(image, seed=s).map for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (3, 40, 56)
    assert predictor.protocol == OneStep(timestep=0, encode="sample", add_noise=True)


def test_the_command_line_turns_it_into_our_layout(folder, tmp_path):
    from twofold.cli.main import run

    out = tmp_path / "own"
    arguments = ["convert-checkpoint", str(folder / "run"), str(out), "--base", str(folder / "base")]
    assert run([*arguments, "--dtype", "float32"]) == 0
    assert json.loads((out / "twofold.json").read_text())["tasks"]["normals"]["head"] == "bae"
    image = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    ours = load(str(out))(image)
    reference = load(str(folder / "run"), base=str(folder / "base"))(image)
    torch.testing.assert_close(ours.map, reference.map)


def test_at_full_size_every_key_and_shape_is_checked(tmp_path):
    """Its own file of Stable Diffusion 1.5 beside it, as its readme has it."""
    folder = layouts.write_diff2in1(tmp_path / "run")
    model = open_model(str(folder), device="meta")
    assert model.backbone.input_channels == 4
    assert sum(p.numel() for p in model.backbone.unet.parameters()) == 859_520_964
    assert [sum(level) for level in model.backbone.levels] == list(official.SD[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("conv_up1.bias"),
            r"checkpoint_45\.pth lacks the tensor conv_up1\.bias; is it the right",
        ),
        (lambda t: t.update(more=torch.ones(1)), r"has the unexpected tensor more"),
        (
            lambda t: t.update({"conv_up1.bias": torch.ones(3)}),
            r"tensor conv_up1\.bias has shape \(3,\); the head needs \(8,\)",
        ),
    ],
)
def test_a_tensor_too_few_too_many_or_misshapen_is_named(folder, tmp_path, change, message):
    table = torch.load(folder / "run" / "checkpoint_45.pth", weights_only=True)
    change(table)
    torch.save(table, tmp_path / "checkpoint_45.pth")
    with pytest.raises(ModelError, match=message):
        read_head(tmp_path / "checkpoint_45.pth", folder / "run" / "checkpoint_bae_45.pth")


def test_half_a_pair_or_two_halves_are_not_one(folder, tmp_path):
    (tmp_path / "sn_ckpt_3.pth").write_bytes((folder / "run" / "checkpoint_45.pth").read_bytes())
    with pytest.raises(ModelError, match=r"no file with the decoder network \(bae_ckpt\)"):
        find_files(tmp_path)
    (tmp_path / "bae_ckpt_4.pth").write_bytes((folder / "run" / "checkpoint_bae_45.pth").read_bytes())
    with pytest.raises(ModelError, match=r"sn_ckpt_3\.pth and bae_ckpt_4\.pth are of different epochs"):
        find_files(tmp_path)


def test_another_network_than_the_head_reads_is_refused(folder, tmp_path):
    save_components(new.tiny(), tmp_path / "base", torch.float32)
    with pytest.raises(ModelError, match=r"reads levels of .* and the U-Net has"):
        open_model(str(folder / "run"), base=str(tmp_path / "base"))


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_file_with_code_is_not_executed(folder, tmp_path):
    mark = tmp_path / "ran"
    torch.save({"low_feature_conv.0.weight": Bomb(mark)}, tmp_path / "checkpoint_45.pth")
    with pytest.raises(ModelError, match="contains more than tensors, and was not run"):
        read_head(tmp_path / "checkpoint_45.pth", folder / "run" / "checkpoint_bae_45.pth")
    with pytest.raises(ModelError, match="contains more than tensors, and was not run"):
        open_model(str(tmp_path), method="diff2in1-normals")
    assert not mark.exists()


def test_bae_s_own_file_is_a_beginning(tmp_path):
    """An encoder beside the decoder, one prefix or two, and a count of steps."""
    expected = official.filled(official.decoder(WIDTHS))
    model = {f"module.decoder.{k}": v for k, v in expected.items()} | {
        "module.encoder.conv_stem.weight": torch.ones(3)
    }
    torch.save({"model": model, "iter": np.int64(7).item()}, tmp_path / "nyu.pt")
    head = BaeHead((8, 8, 8, 8), WIDTHS)
    load_bae_decoder(head, tmp_path / "nyu.pt")
    _, decoder = official_tensors(head)
    assert all(torch.equal(decoder[k], v) for k, v in expected.items())
    with pytest.raises(
        ModelError,
        match=r"nyu\.pt: tensor conv2\.weight has shape \(128, 128, 1, 1\); the head needs \(256, 256",
    ):
        load_bae_decoder(BaeHead((8, 8, 8, 8), (256, *WIDTHS[1:])), tmp_path / "nyu.pt")
    assert decoder_tensors(expected) == expected
