"""Evaluation: scores of a predictor on samples, and evaluations by published protocols with reports."""

from .benchmarks import BENCHMARKS, EVAL_PROTOCOLS, Benchmark, get_benchmark, get_eval_protocol
from .compare import compare
from .pipeline import evaluation_from_files, evaluation_from_model, make_report, run_and_report
from .protocol import EvalProtocol, EvaluationError
from .published import published
from .report import RunMetadata
from .report_file import read_report
from .request import EvalRequest, select_task
from .run import Evaluation, run
from .score import score, score_baselines

__all__ = [
    "BENCHMARKS",
    "EVAL_PROTOCOLS",
    "RunMetadata",
    "Benchmark",
    "Evaluation",
    "EvaluationError",
    "EvalRequest",
    "EvalProtocol",
    "run_and_report",
    "compare",
    "make_report",
    "get_benchmark",
    "get_eval_protocol",
    "evaluation_from_files",
    "evaluation_from_model",
    "published",
    "read_report",
    "run",
    "score",
    "score_baselines",
    "select_task",
]
