"""Training stage of a user-defined network: images in, encoded targets out, without a diffusion model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..predict.module import ModulePredictor, TaskOutputs, pad_images, parse_outputs
from .distributed import DistributedContext
from .encoder import Encoder
from .examples import Example, MultiTaskExample
from .model_config import NetworkConfig
from .perception import PerceptionStage, losses_need_image
from .recipe import Recipe
from .step import Loss, Terms
from .trainable import make_tasks


class NetworkStage(PerceptionStage):
    """Losses and scores of a network with the interface of `twofold.predict.module`; see `loop.Stage`.

    An image is trained for every task that it has a target of, in one forward pass. The loss of an image is the sum
    over its tasks; that of a batch is the mean over images. Batch normalisation takes its statistics from the
    micro-batch (``loop.micro_batch_size``) of each process.

    The EMA teacher of pseudo-labels is the average of the whole network (`state.Ema`), in evaluation mode. With
    ``ema.update_every`` its running statistics are averages of the student's too; otherwise they are the student's own.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, run: Path, distributed: DistributedContext
    ) -> None:
        assert isinstance(recipe.model, NetworkConfig)
        self.module = network.to(distributed.device)
        if not any(p.requires_grad for p in network.parameters()):
            raise ValueError(
                f"{recipe.model.factory} returns a network without trainable parameters; set requires_grad of some"
            )
        tasks = make_tasks(recipe)
        encoder = Encoder(None, tasks, latent=False, pixels=True, keep_image=losses_need_image(recipe, tasks))
        super().__init__(recipe, run, distributed, tasks, encoder, None)

    def loss(self, examples: Sequence[MultiTaskExample]) -> Loss:
        """The loss of ``examples``, a part of a batch; images of one shape share a forward pass."""
        groups: dict[tuple[int, ...], list[MultiTaskExample]] = {}
        for example in examples:
            groups.setdefault(next(iter(example.values())).image.shape, []).append(example)
        loss = Loss(self.distributed.device, self.recipe.loop.batch_size)
        for group in groups.values():
            self._add(loss, group)
        return loss

    def _add(self, loss: Loss, group: Sequence[MultiTaskExample]) -> None:
        """Add the loss of images that have one shape."""
        images = torch.stack([next(iter(example.values())).image for example in group]).to(
            self.distributed.device
        )
        kinds = [k for k in self.tasks if any(k in example for example in group)]
        pseudo_labels = self._pseudo_labels(group, images, kinds)
        outputs = self._outputs(images, kinds)
        uncounted = set(range(len(group)))
        for kind in kinds:
            indices = [i for i, example in enumerate(group) if kind in example]
            labelled = self._apply_pseudo_labels(
                kind,
                [group[i][kind] for i in indices],
                [pseudo_labels[i][kind] for i in indices if i in pseudo_labels],
            )
            terms = self._terms(kind, [output[indices] for output in outputs[kind]], labelled)
            loss.add(kind, [e.name for e in labelled], terms, len(uncounted.intersection(indices)))
            uncounted.difference_update(indices)

    def _terms(self, kind: str, outputs: Sequence[Tensor], examples: Sequence[Example]) -> Terms:
        """The task's losses, summed over its output ``b c h w`` and the auxiliary outputs of training."""
        found = [self._pixel_loss_terms(kind, output, examples) for output in outputs]
        return {
            name: (weight, torch.stack([terms[name][1] for terms in found]).sum(0))
            for name, (weight, _) in found[0].items()
        }

    def _outputs(self, images: Tensor, kinds: Sequence[str]) -> TaskOutputs:
        padded, size = pad_images(self.module, images)
        with self.distributed.precision(self.recipe.loop.precision):
            raw = self.module(padded)
        return parse_outputs(raw, {k: self.tasks[k] for k in kinds}, padded.shape, size)

    def _pseudo_labels(
        self, group: Sequence[MultiTaskExample], images: Tensor, kinds: Sequence[str]
    ) -> Mapping[int, Mapping[str, Tensor]]:
        """The teacher's outputs, by index in the group and kind, of the images that it labels."""
        indices = [i for i, example in enumerate(group) if any(e.use_teacher_label for e in example.values())]
        if not indices:
            return {}
        padded, size = pad_images(self.module, images[indices])
        with self.distributed.precision(self.recipe.loop.precision):
            raw = self._teacher().ema_forward(self.module, (padded,))
        outputs = parse_outputs(raw, {k: self.tasks[k] for k in kinds}, padded.shape, size)
        return {index: {k: outputs[k][0][n] for k in kinds} for n, index in enumerate(indices)}

    def _predictors(self) -> dict[str, ModulePredictor]:
        size = max(self.recipe.data.size)
        return {name: ModulePredictor(self.module, task, name, size) for name, task in self.tasks.items()}

    def finish(self) -> None:
        """Nothing to do."""
