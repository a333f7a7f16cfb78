"""Work over many files: what is found, what was done, and what is left when the process dies."""

from twofold.job.inputs import Input, Problem, find_inputs
from twofold.job.predict import Job, OutputError, predict_files
from twofold.job.rows import Ledger, LedgerError

__all__ = [
    "Input",
    "Job",
    "Ledger",
    "LedgerError",
    "OutputError",
    "Problem",
    "find_inputs",
    "predict_files",
]
