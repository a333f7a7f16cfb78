"""Data folders: labelled images on disk, real, rendered or synthetic."""

from twofold.data.folder import Folder as Folder
from twofold.data.layout import FolderError as FolderError
from twofold.data.report import Report as Report, validate as validate
from twofold.data.writer import FolderWriter as FolderWriter
