"""Evaluation: scores of a predictor on samples, and evaluations by published protocols with reports."""

from .benchmarks import (
    BENCHMARKS as BENCHMARKS,
    EVAL_PROTOCOLS as EVAL_PROTOCOLS,
    Benchmark as Benchmark,
    get_benchmark as get_benchmark,
    get_eval_protocol as get_eval_protocol,
)
from .compare import compare as compare
from .pipeline import (
    evaluation_from_files as evaluation_from_files,
    evaluation_from_model as evaluation_from_model,
    make_report as make_report,
    run_and_report as run_and_report,
)
from .protocol import EvalProtocol as EvalProtocol, EvaluationError as EvaluationError
from .published import published as published
from .report import RunMetadata as RunMetadata
from .report_file import read_report as read_report
from .request import EvalRequest as EvalRequest, select_task as select_task
from .run import Evaluation as Evaluation, run as run
from .score import score as score, score_baselines as score_baselines
