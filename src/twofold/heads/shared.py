"""What heads of several tasks have together: a part that is one module in all of them.

A head's class says which of its parts these are, by name: ``shares``, as `MultiTaskHead.shares`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy

from torch import nn


def shared_parts(heads: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
    """What several heads have together: the name of the part, the part, and who has it, in their order.

    A part that one head has alone is not among them.
    """
    found: dict[tuple[str, int], tuple[nn.Module, list[str]]] = {}
    for task, head in heads.items():
        for part in getattr(head, "shares", ()):
            module = head.get_submodule(part)
            found.setdefault((part, id(module)), (module, []))[1].append(task)
    for (part, _), (module, tasks) in found.items():
        if len(tasks) > 1:
            yield part, module, tuple(tasks)


def share(
    heads: Mapping[str, nn.Module], learned: Mapping[str, nn.Module], others: Iterable[nn.Module]
) -> None:
    """Let ``heads`` have together, in place, what heads of their kind share.

    Args:
        heads: by task, all of a run.
        learned: those of them that are no fresh ones. What they have together the others take over.
        others: heads that do not learn with them, and go on with a copy of what they have had so far: theirs must not
            change under them.

    Raises:
        ValueError: what is to be one is two: heads that were learned apart, or of different shapes.
    """
    others = list(others)
    for part in dict.fromkeys(p for head in heads.values() for p in getattr(head, "shares", ())):
        sharing = {t: h for t, h in heads.items() if part in getattr(h, "shares", ())}
        old = {t: h.get_submodule(part) for t, h in sharing.items() if t in learned}
        apart = {id(m): t for t, m in old.items()}
        if len(apart) > 1:
            first, second = sorted(apart.values())[:2]
            raise ValueError(
                f"{first} and {second} are to share their {part}, and were learned with one each; begin with fresh "
                'heads (reset=["heads"]), or teach one of them'
            )
        module = next(iter(old.values()), next(iter(sharing.values())).get_submodule(part))
        if any(getattr(h, part, None) is module for h in others):
            module = deepcopy(module)
        _check_shapes(part, module, sharing)
        for head in sharing.values():
            setattr(head, part, module)


def _check_shapes(part: str, module: nn.Module, heads: Mapping[str, nn.Module]) -> None:
    wanted = {k: v.shape for k, v in module.state_dict().items()}
    for task, head in heads.items():
        if {k: v.shape for k, v in head.get_submodule(part).state_dict().items()} != wanted:
            raise ValueError(
                f"the {part} of {task} has another shape than the one it is to share; begin with fresh heads "
                '(reset=["heads"])'
            )
