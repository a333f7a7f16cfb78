"""Measuring predictors: scores of samples in hand, and whole evaluations by published standards, with reports."""

from .benchmarks import BENCHMARKS, Benchmark, get_benchmark
from .compare import compare
from .published import published
from .report import About, read
from .run import Evaluation, run
from .score import score, score_baselines
from .standard import EvaluationError, Standard
from .standards import STANDARDS, get_standard
from .whole import Question, carry_out, finish, of_files, of_model, task_for

__all__ = [
    "BENCHMARKS",
    "STANDARDS",
    "About",
    "Benchmark",
    "Evaluation",
    "EvaluationError",
    "Question",
    "Standard",
    "carry_out",
    "compare",
    "finish",
    "get_benchmark",
    "get_standard",
    "of_files",
    "of_model",
    "published",
    "read",
    "run",
    "score",
    "score_baselines",
    "task_for",
]
