"""Procedural scenes, path traced, with exact labels. Needs the extra `render` (mitsuba, mitsuba-oidn)."""

from twofold.render.generate import RENDERER_VERSION as RENDERER_VERSION, render_one as render_one
from twofold.render.job import Progress as Progress, render as render
from twofold.render.tracer import RendererMissing as RendererMissing
