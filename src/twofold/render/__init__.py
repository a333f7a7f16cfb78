"""Procedural scenes, path traced, with exact labels. Needs the extra `render` (mitsuba, mitsuba-oidn)."""

from twofold.render.generate import RENDERER_VERSION, render_one
from twofold.render.job import Progress, render
from twofold.render.tracer import RendererMissing

__all__ = ["RENDERER_VERSION", "Progress", "RendererMissing", "render", "render_one"]
