"""Model settings of a recipe, by kind of run: the autoencoder, the denoising network, or a user-defined network."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ..backbones.encoders import IMAGE_ENCODERS
from ..heads import HEADS
from ..named_code import names_code
from ..protocols import OneStep, Protocol
from ..suggest import unknown
from .config import RecipeSection


def _through_json(options: dict[str, Any]) -> dict[str, Any]:
    """Options as read from a recipe's JSON file, whose tuples are lists."""
    return json.loads(json.dumps(options))


class HeadConfig(RecipeSection):
    """The head, which decodes the network's features into a task's output.

    Attributes:
        name: ``latent`` is the autoencoder's decoder; the other `twofold.heads` are trained in the run, which needs
            ``pixel_loss_weight`` > 0.
        options: of the head's class, such as ``{"width": 128}``.
        lr: learning rate of heads and decoder; 0 is ``optimizer.lr``.
    """

    name: str = "latent"
    options: dict[str, Any] = Field(default_factory=dict)
    lr: float = Field(0.0, ge=0)

    _normalized = field_validator("options")(_through_json)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in HEADS and not names_code(name):
            raise ValueError(unknown("head", name, HEADS))
        return name


class LoraConfig(RecipeSection):
    """Low-rank adapters of the U-Net (Hu et al. 2022), merged into its weights when the run is saved.

    Attributes:
        rank: of the adapters.
        alpha: their scale is alpha / rank; 0 is the rank, so that the scale is 1.
        target_modules: suffixes of the names of the layers that get adapters.
    """

    rank: int = Field(16, ge=1)
    alpha: int = Field(0, ge=0)
    target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")


class ImageEncoderConfig(RecipeSection):
    """The image encoder beside the latent (`twofold.backbones.image_encoder`).

    Attributes:
        name: pretrained encoder to add to an initial model that has none (`twofold.backbones.encoders`).
        mode: whether tasks get no features of the initial model's encoder (``off``), its features with frozen weights
            (``frozen``), or trainable weights (``full``). Its adapters are trained if the U-Net is.
        lr: learning rate of the encoder; 0 is ``optimizer.lr``.
    """

    name: str = ""
    mode: Literal["off", "frozen", "full"] = "frozen"
    lr: float = Field(0.0, ge=0)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name and name not in IMAGE_ENCODERS:
            raise ValueError(f"unknown image encoder {name!r}; known: {', '.join(IMAGE_ENCODERS)}")
        return name


class AutoencoderConfig(RecipeSection):
    """Train the autoencoder on images and encoded targets.

    Attributes:
        kind: discriminator.
        init_from: folder, published name or hub id of the initial model, or ``new`` for random weights.
        reset: parts of the initial model to reinitialize.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    init_from: str = "new"
    reset: tuple[Literal["unet", "text", "decoder", "heads"], ...] = ()


class DenoiserConfig(RecipeSection):
    """Train the denoising network: text-to-image diffusion, perception tasks, or both.

    Attributes:
        kind: discriminator.
        init_from: folder, published name or hub id of the initial model, or ``new`` for random weights.
        reset: parts of the initial model to reinitialize; ``text`` is the text encoder with its vocabulary,
            ``decoder`` the autoencoder's, ``heads`` the trained heads.
        protocol: the network's input and how the prediction is computed (`twofold.protocols`). A network with fewer
            input channels is expanded as in Marigold. Training latents are always the mean of their posterior;
            ``encode`` concerns inference.
        prompts: by task, the prompt that replaces the task's own.
        pad_prompts: whether prompts are padded to the tokenizer's length (77).
        caption_dropout: probability of an empty caption, for classifier-free guidance.
        unet: ``full``, ``frozen`` (for a head that reads its features), or ``lora``.
        text_encoder: ``full`` or ``frozen``.
        decoder: of the autoencoder, ``frozen`` or trained as the last part of a latent head (``full``).
        lora: used with ``unet="lora"``.
        head: decodes perception tasks.
        image_encoder: adds features of the image.
        gradient_checkpointing: recompute activations of the U-Net in the backward pass instead of storing them.
        latent_loss_weight: weight of the masked squared error between latents.
        pixel_loss_weight: weight of each task's own losses on the head's output; 0 does not run the decoder.
    """

    kind: Literal["denoiser"] = "denoiser"
    init_from: str = "new"
    reset: tuple[Literal["unet", "text", "decoder", "heads"], ...] = ()
    protocol: Protocol = OneStep()
    prompts: dict[str, str] = Field(default_factory=dict)
    pad_prompts: bool = False
    caption_dropout: float = Field(0.1, ge=0, le=1)
    unet: Literal["full", "frozen", "lora"] = "full"
    text_encoder: Literal["full", "frozen"] = "full"
    decoder: Literal["frozen", "full"] = "frozen"
    lora: LoraConfig = LoraConfig()
    head: HeadConfig = HeadConfig()
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    gradient_checkpointing: bool = False
    latent_loss_weight: float = Field(1.0, ge=0)
    pixel_loss_weight: float = Field(0.0, ge=0)

    @property
    def only_heads_train(self) -> bool:
        """Whether every weight but those of heads is frozen."""
        trained = (self.unet, self.text_encoder, self.decoder, self.image_encoder.mode)
        return "full" not in trained and self.unet != "lora"

    def check_image_task(self) -> None:
        """Check the settings of the image task.

        Raises:
            ValueError: it would train nothing; one line.
        """
        if self.unet == self.text_encoder == "frozen":
            raise ValueError(
                "the image task trains nothing where unet and text_encoder are frozen; remove it from task_weights"
            )

    def check_tasks(self) -> None:
        """Check the settings of perception tasks.

        Raises:
            ValueError: they cannot be trained with these settings; one line.
        """
        latent, pixel = self.latent_loss_weight > 0, self.pixel_loss_weight > 0
        if self.head.name != "latent" and not pixel:
            raise ValueError(
                f"a {self.head.name} head is trained by the pixel loss only: the recipe needs pixel_loss_weight > 0"
            )
        if not latent and not pixel:
            raise ValueError(
                "the tasks have no loss: latent_loss_weight or pixel_loss_weight must be above 0"
            )
        if self.decoder == "full" and not (self.head.name == "latent" and pixel):
            raise ValueError(
                "a decoder is trained by the pixel loss of a latent head: head.name='latent', pixel_loss_weight > 0"
            )
        if self.unet == "frozen" and self.head.name == "latent" and self.decoder == "frozen":
            raise ValueError(
                "nothing would be trained: unet='frozen' needs a trainable head, or decoder='full'"
            )
        if self.protocol.kind == "multi_step" and pixel and self.protocol.start != "zeros":
            raise ValueError(
                "the pixel loss needs a prediction in one denoising step: a one-step protocol, or a multi-step "
                "protocol that starts from zeros"
            )


class NetworkConfig(RecipeSection):
    """Train a user-defined network on perception tasks; see `predict.module`.

    Attributes:
        kind: discriminator.
        factory: code that builds the network, ``package.module:make`` or ``file.py:make``: a class, or a function
            annotated ``-> nn.Module``. Parameters with ``requires_grad`` are trained.
        options: keyword arguments of the factory.
        init_from: folder of a checkpoint, or ``new`` for the initial weights of the factory.
    """

    kind: Literal["network"] = "network"
    factory: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    init_from: str = "new"

    _normalized = field_validator("options")(_through_json)


ModelConfig = Annotated[AutoencoderConfig | DenoiserConfig | NetworkConfig, Field(discriminator="kind")]
