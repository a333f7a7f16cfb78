"""Tasks with the classes of public data sets, for recipes and checkpoints: ``twofold.data.labels:hypersim``.

A converted folder holds ids; these tasks define the number of classes and their encoding as colours or logits.
"""

from __future__ import annotations

from ..tasks import Task, semantic_logits_task, semantic_task
from .convert.ade20k import CLASSES
from .convert.hypersim import NYU40
from .convert.nyud_mt import CLASSES as NYUD_MT
from .convert.pascal_mt import CLASSES as PASCAL_MT

hypersim: Task = semantic_task(NYU40)
hypersim_logits: Task = semantic_logits_task(NYU40)
ade20k_logits: Task = semantic_logits_task(CLASSES)
nyud_mt_logits: Task = semantic_logits_task(NYUD_MT)
pascal_mt_logits: Task = semantic_logits_task(PASCAL_MT)
