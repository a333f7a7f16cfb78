"""Labelled images on disk: one layout for photographs, rendered and synthetic images."""

from twofold.data.folder import Folder
from twofold.data.layout import FolderError
from twofold.data.report import Report, validate
from twofold.data.writer import FolderWriter

__all__ = ["Folder", "FolderError", "FolderWriter", "Report", "validate"]
