"""Data folders: labelled images on disk, real, rendered or synthetic."""

from twofold.data.folder import Folder
from twofold.data.layout import FolderError
from twofold.data.report import Report, validate
from twofold.data.writer import FolderWriter

__all__ = ["Folder", "FolderError", "FolderWriter", "Report", "validate"]
