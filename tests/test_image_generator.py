"""An image depends on its caption, its seed and its own start image only."""

import pytest
import torch

from twofold.backbones import new
from twofold.generate.images import ImageGenerator


@pytest.fixture(scope="module")
def draw():
    return ImageGenerator(new.tiny(), steps=4, guidance=2.0)


CAPTIONS = ["a red chair", "a depth map", "surface normals"]


def test_three_together_are_three_alone(draw):
    together = draw(CAPTIONS, size=(40, 56), seed=7)
    assert together.shape == (3, 3, 40, 56)
    for i, caption in enumerate(CAPTIONS):
        torch.testing.assert_close(
            draw([caption], size=(40, 56), seed=7 + i)[0], together[i], rtol=0, atol=1e-4
        )


def test_the_same_seed_gives_the_same_image_and_another_does_not(draw):
    first = draw(["a red chair"], size=(32, 32), seed=1)
    assert torch.equal(first, draw(["a red chair"], size=(32, 32), seed=1))
    assert not torch.equal(first, draw(["a red chair"], size=(32, 32), seed=2))


def test_strength_one_forgets_the_image_and_less_keeps_its_size(draw):
    like = torch.rand(1, 3, 45, 37, generator=torch.Generator().manual_seed(0))
    plain = draw(["a red chair"], size=(48, 40), seed=3)
    assert torch.equal(draw(["a red chair"], image=like, strength=1.0, seed=3), plain[..., :45, :37])
    assert draw(["a red chair"], image=like, strength=0.5).shape == like.shape


def test_the_start_image_is_encoded_in_the_range_of_the_autoencoder(draw, monkeypatch):
    seen, encode = [], draw.backbone.encode
    monkeypatch.setattr(
        draw.backbone, "encode", lambda canvas, *args: (seen.append(canvas), encode(canvas, *args))[1]
    )
    image = torch.rand(1, 3, 28, 32, generator=torch.Generator().manual_seed(0))
    draw(["a red chair"], image=image, strength=0.5)
    expected = torch.nn.functional.pad(image, (0, 0, 0, 4), mode="replicate") * 2 - 1
    torch.testing.assert_close(seen[0], expected)


def test_less_strength_stays_closer_to_the_autoencoded_image(draw):
    """Measured in the latent, where the noise is added: a random network adds little of its own."""
    like = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    net = draw.backbone
    with torch.no_grad():
        kept = ((net.decode(net.encode(like * 2 - 1)).clamp(-1, 1) + 1) / 2).float()
    gentle = ImageGenerator(net, steps=50, guidance=1.0)
    weak, strong = (gentle([""], image=like, strength=s, seed=0) for s in (0.04, 0.9))
    assert (weak - kept).abs().mean() < (strong - kept).abs().mean()


def test_wrong_strengths_and_counts_are_refused(draw):
    like = torch.rand(1, 3, 32, 32)
    for strength in (0.0, 1.2, -1):
        with pytest.raises(ValueError, match="strength"):
            draw(["x"], image=like, strength=strength)
    with pytest.raises(ValueError, match="1 images for 2 captions"):
        draw(["x", "y"], image=like, strength=0.5)


def test_without_an_image_it_equals_the_diffusers_pipeline(tmp_path):
    """The saved folder is a StableDiffusionPipeline; with the same noise both generate the same image."""
    from diffusers import StableDiffusionPipeline

    from twofold.backbones.stable_diffusion import save_components

    net = new.tiny()
    save_components(net, tmp_path / "sd", torch.float32)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "sd", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(5))
    reference = pipeline(
        "a red chair",
        height=48,
        width=40,
        num_inference_steps=4,
        guidance_scale=2.0,
        latents=noise,
        output_type="np",
    ).images[0]
    ours = ImageGenerator(net, steps=4, guidance=2.0)(["a red chair"], size=(48, 40), seed=5)[0]
    torch.testing.assert_close(ours, torch.from_numpy(reference).permute(2, 0, 1), rtol=0, atol=1e-3)
