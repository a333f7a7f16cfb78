"""Training a network of somebody's own: pictures in, canvases out, and no diffusion model inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..predict.module import ModulePredictor, TaskOutputs, pad_images, parse_outputs
from .distributed import DistributedContext
from .encoder import Encoder
from .examples import Example, MultiTaskExample
from .trainable import make_tasks
from .model_config import NetworkConfig
from .perception import PerceptionStage, look_at_pictures
from .recipe import Recipe
from .step import Loss, Terms


class NetworkStage(PerceptionStage):
    """Losses and scores of a network as `twofold.predict.module` says it has to be; see `loop.Stage`.

    A picture teaches every task that something is known of it for, by one look of the network. Losses are those of the
    tasks, of each picture by itself: a sum over its tasks, averaged over pictures. What a network does by batch, such
    as batch normalisation, it does over the micro-batch (``loop.micro_batch_size``) of each process.

    Where a source is labelled by the teacher, that is the average of the whole network (`state.Ema`), in evaluation
    mode. With ``ema.update_every`` its running statistics follow those of the student as its weights do; otherwise they
    are the student's own.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, run: Path, distributed: DistributedContext
    ) -> None:
        assert isinstance(recipe.model, NetworkConfig)
        self.module = network.to(distributed.device)
        if not any(p.requires_grad for p in network.parameters()):
            raise ValueError(
                f"{recipe.model.factory} makes a network of which nothing learns: no parameter wants a gradient"
            )
        tasks = make_tasks(recipe)
        encoder = Encoder(None, tasks, latent=False, pixels=True, pictures=look_at_pictures(recipe, tasks))
        super().__init__(recipe, run, distributed, tasks, encoder, None)

    def loss(self, examples: Sequence[MultiTaskExample]) -> Loss:
        """The lessons' part of their batch's loss."""
        groups: dict[tuple[int, ...], list[MultiTaskExample]] = {}
        for lesson in examples:
            groups.setdefault(next(iter(lesson.values())).shape, []).append(lesson)
        loss = Loss(self.distributed.device, self.recipe.loop.batch_size)
        for group in groups.values():
            self._add(loss, group)
        return loss

    def _add(self, loss: Loss, group: Sequence[MultiTaskExample]) -> None:
        """Add the loss of lessons whose pictures have one size."""
        images = torch.stack([next(iter(lesson.values())).image for lesson in group]).to(
            self.distributed.device
        )
        kinds = [k for k in self.tasks if any(k in lesson for lesson in group)]
        answers = self._answers(group, images, kinds)
        outputs = self._outputs(images, kinds)
        fresh = set(range(len(group)))
        for kind in kinds:
            places = [i for i, lesson in enumerate(group) if kind in lesson]
            taught = self._apply_pseudo_labels(
                kind, [group[i][kind] for i in places], [answers[i][kind] for i in places if i in answers]
            )
            terms = self._terms(kind, [canvas[places] for canvas in outputs[kind]], taught)
            loss.add(kind, [e.name for e in taught], terms, len(fresh.intersection(places)))
            fresh.difference_update(places)

    def _terms(self, kind: str, canvases: Sequence[Tensor], examples: Sequence[Example]) -> Terms:
        """The task's losses on its canvas, and on every further one that the network gives while it learns."""
        found = [self._pixel_loss_terms(kind, canvas, examples) for canvas in canvases]
        return {
            name: (weight, torch.stack([terms[name][1] for terms in found]).sum(0))
            for name, (weight, _) in found[0].items()
        }

    def _outputs(self, images: Tensor, kinds: Sequence[str]) -> TaskOutputs:
        shown, size = pad_images(self.module, images)
        with self.distributed.precision(self.recipe.loop.precision):
            said = self.module(shown)
        return parse_outputs(said, {k: self.tasks[k] for k in kinds}, shown.shape, size)

    def _answers(
        self, group: Sequence[MultiTaskExample], images: Tensor, kinds: Sequence[str]
    ) -> Mapping[int, Mapping[str, Tensor]]:
        """By place in the group, the teacher's outputs for an image that it labels."""
        asked = [i for i, lesson in enumerate(group) if any(e.use_teacher_label for e in lesson.values())]
        if not asked:
            return {}
        shown, size = pad_images(self.module, images[asked])
        with self.distributed.precision(self.recipe.loop.precision):
            said = self._teacher().ema_forward(self.module, (shown,))
        outputs = parse_outputs(said, {k: self.tasks[k] for k in kinds}, shown.shape, size)
        return {place: {k: outputs[k][0][n] for k in kinds} for n, place in enumerate(asked)}

    def _predictors(self) -> dict[str, ModulePredictor]:
        size = max(self.recipe.data.size)
        return {name: ModulePredictor(self.module, task, name, size) for name, task in self.tasks.items()}

    def finish(self) -> None:
        """Nothing is left to be done."""
