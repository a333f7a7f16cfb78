"""Diff-2-in-1's two tables of tensors, by the names and shapes of its files, with numbers by rule."""

from __future__ import annotations

import torch

SD = (7680, 7040, 4160, 2560), (2048, 176, 64, 40, 24)
# A third of the real file: parts that are never run. Two of them have known shapes.
DEAD = {"to_k.weight": (512, 37632), "to_q.weight": (512, 768)}

Shapes = dict[str, tuple[int, ...]]


def fusion(levels=SD[0], widths=SD[1], dead: bool = False) -> Shapes:
    deep, low, middle, high, fine = widths
    out: Shapes = {}
    for name, i, o in zip(
        ("low", "mid", "high", "highest"), levels, (deep, low, middle, middle), strict=True
    ):
        out[f"{name}_feature_conv.0.weight"] = (o, i, 1, 1)
    for name, i, o in (
        ("mid", deep + low, low),
        ("high", low + middle, middle),
        ("highest", 2 * middle, middle),
    ):
        block = f"{name}_feature_mix_conv"
        for k, n in ((1, i), (2, o)):
            out |= {f"{block}.stored_mean{k}": (n,), f"{block}.stored_var{k}": (n,)}
        for conv, n, size in (("conv1", i, 3), ("conv2", o, 3), ("conv_sc", i, 1)):
            out |= {f"{block}.{conv}.weight": (o, n, size, size), f"{block}.{conv}.bias": (o,)}
            out |= {f"{block}.{conv}.u0": (1, o), f"{block}.{conv}.sv0": (1,)}
    for k, n in enumerate((middle, high, fine)):
        out |= {f"bn_up{k}.{part}": (n,) for part in ("weight", "bias", "running_mean", "running_var")}
        out[f"bn_up{k}.num_batches_tracked"] = ()
    out |= {"conv_up1.weight": (middle, high, 2, 2), "conv_up1.bias": (high,)}
    out |= {"conv_up2.weight": (high + middle, fine, 2, 2), "conv_up2.bias": (fine,)}
    return out | (DEAD if dead else {})


def decoder(widths=SD[1]) -> Shapes:
    deep = widths[0]
    out: Shapes = {"conv2.weight": (deep, deep, 1, 1), "conv2.bias": (deep,)}
    before = deep
    for k, beside in enumerate(widths[1:], 1):
        o = deep // 2**k
        for place, i in ((0, before + beside), (3, o)):
            out |= {f"up{k}._net.{place}.weight": (o, i, 3, 3), f"up{k}._net.{place}.bias": (o,)}
            out |= {f"up{k}._net.{place + 1}.{part}": (o,) for part in ("weight", "bias")}
        before = o
    out |= {"out_conv_res8.weight": (4, deep // 4, 3, 3), "out_conv_res8.bias": (4,)}
    for name, i in (("4", deep // 4), ("2", deep // 8), ("1", deep // 16)):
        for place, (c, o) in ((0, (i + 4, 128)), (2, (128, 128)), (4, (128, 128)), (6, (128, 4))):
            out |= {f"out_conv_res{name}.{place}.weight": (o, c, 1), f"out_conv_res{name}.{place}.bias": (o,)}
    return out


def filled(shapes: Shapes, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Numbers by the place of a name among all names, sorted, and by the place in its tensor."""
    out = {}
    for k, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        count = int(torch.tensor(shape).prod()) if shape else 1
        s = torch.sin(0.37 * torch.arange(count, dtype=torch.float64) + 0.11 * k).reshape(shape)
        if name.endswith("num_batches_tracked"):
            out[name] = torch.tensor(0)
            continue
        if "_var" in name:
            s = 1 + 0.1 * s.abs()
        elif "_mean" in name:
            s = 0.1 * s
        elif name.endswith("u0"):
            s = s / s.norm()
        elif name.endswith("sv0"):
            s = torch.ones_like(s)
        elif s.ndim >= 2:
            s = s * (2 / s[0].numel()) ** 0.5
        elif name.endswith("bias"):
            s = 0.05 * s
        else:
            s = 1 + 0.05 * s
        out[name] = s.to(dtype)
    return out
