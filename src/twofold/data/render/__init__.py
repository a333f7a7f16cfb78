"""Procedural scenes, path traced, with exact labels. Needs the extra `render` (mitsuba, mitsuba-oidn)."""

from twofold.data.render.generate import RENDERER_VERSION, render_one
from twofold.data.render.job import Progress, render
from twofold.data.render.tracer import RendererMissing

__all__ = ["RENDERER_VERSION", "Progress", "RendererMissing", "render", "render_one"]
