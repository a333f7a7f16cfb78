"""Modules that the heads of several tasks share; `Head.shared_modules` names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy

from torch import nn

from .head import Head


def find_shared(heads: Mapping[str, Head]) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
    """Modules that at least two heads share: the module's name, the module, and the tasks, in their order."""
    found: dict[tuple[str, int], tuple[nn.Module, list[str]]] = {}
    for task, head in heads.items():
        for name in head.shared_modules:
            module = head.get_submodule(name)
            found.setdefault((name, id(module)), (module, []))[1].append(task)
    for (name, _), (module, tasks) in found.items():
        if len(tasks) > 1:
            yield name, module, tuple(tasks)


def share_modules(heads: Mapping[str, Head], trained: Mapping[str, Head], others: Iterable[Head]) -> None:
    """Make the `Head.shared_modules` of ``heads`` one module each, in place.

    Args:
        heads: by task, all of a run.
        trained: those of them that are not new. The others take over their shared modules.
        others: heads that do not train with them. Where one of these uses a shared module, ``heads`` get a copy, so
            that its weights do not change.

    Raises:
        ValueError: ``trained`` heads have different modules, or the shapes differ.
    """
    others = list(others)
    for name in dict.fromkeys(n for head in heads.values() for n in head.shared_modules):
        sharing = {t: h for t, h in heads.items() if name in h.shared_modules}
        old = {t: h.get_submodule(name) for t, h in sharing.items() if t in trained}
        apart = {id(m): t for t, m in old.items()}
        if len(apart) > 1:
            first, second = sorted(apart.values())[:2]
            raise ValueError(
                f"the heads of {first} and {second} have to share their {name}, but were trained with one each; start "
                'with new heads (reset=["heads"]), or train one of the two'
            )
        module = next(iter(old.values()), next(iter(sharing.values())).get_submodule(name))
        if any(name in h.shared_modules and h.get_submodule(name) is module for h in others):
            module = deepcopy(module)
        _check_shapes(name, module, sharing)
        for head in sharing.values():
            setattr(head, name, module)


def _check_shapes(name: str, module: nn.Module, heads: Mapping[str, Head]) -> None:
    expected = {k: v.shape for k, v in module.state_dict().items()}
    for task, head in heads.items():
        if {k: v.shape for k, v in head.get_submodule(name).state_dict().items()} != expected:
            raise ValueError(
                f"the {name} of {task} has another shape than the shared one; start with new heads "
                '(reset=["heads"])'
            )
