"""The path tracer (Mitsuba 3): one mesh, one material, a few lights, one sky, so that its compiled kernels
are reused.

Images come from many rays a pixel and a denoiser (Intel Open Image Denoise); labels from exactly one ray through
each pixel centre, so that an edge is an edge and never an average of two objects.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.render.camera import View
from twofold.render.llvm import VARIABLE, find_llvm
from twofold.render.meshes import Array, Mesh
from twofold.render.scene import Scene

log = logging.getLogger(__name__)
DEPTH = 5
"""Longest light path, in bounces."""
# Mitsuba's environment map has y up; this package has z up.
_SKY_TO_WORLD = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


class RendererMissing(RuntimeError):
    """Mitsuba is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Labels:
    """What one ray a pixel found, h w each; normals h w 3 in frame RUB, zero at the sky;
    depth +inf at the sky.
    """

    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    instance: NDArray[np.int64]
    backface: NDArray[np.bool_]
    albedo: NDArray[np.float32]


@cache
def mitsuba() -> Any:
    """The mitsuba module with its variant chosen: vectorised when an LLVM library is found, else scalar
    (slow).

    RendererMissing when it is not installed.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OIDN_NUM_THREADS", "1")
    path = find_llvm()
    if path:
        os.environ[VARIABLE] = path
    try:
        import mitsuba as mi
    except ImportError as error:
        raise RendererMissing("rendering needs mitsuba: pip install 'twofold[render]'") from error
    if path:
        mi.set_variant("llvm_ad_rgb")
        import drjit as dr

        dr.set_thread_count(1)
        dr.set_log_level(dr.LogLevel.Error)
    else:
        log.warning(
            "no libLLVM >= 16 found: rendering with the scalar tracer, about five times slower. Set %s",
            VARIABLE,
        )
        mi.set_variant("scalar_rgb")
    return mi


@contextmanager
def threads(count: int) -> Generator[None]:
    """The tracer's thread pool made larger for a moment."""
    import drjit as dr

    before = dr.thread_count()
    dr.set_thread_count(count)
    try:
        yield
    finally:
        dr.set_thread_count(before)


def variant() -> str:
    """The tracer's variant, for the header: it changes the last bits of an image."""
    return str(mitsuba().variant())


def versions() -> dict[str, str]:
    """Versions of everything that decides the bytes of an image."""
    import importlib.metadata as meta

    names = ("mitsuba", "mitsuba-oidn", "drjit", "numpy")
    return {name: meta.version(name) for name in names}


class Tracer:
    """A loaded scene: load it once, compute labels of many views, render one of them."""

    def __init__(self, scene: Scene) -> None:
        self.mi = mi = mitsuba()
        self.scene = scene
        surface = scene.surface
        material = mi.load_dict(
            {
                "type": "twosided",
                "bsdf": {
                    "type": "principled",
                    "base_color": {
                        "type": "bitmap",
                        "bitmap": mi.Bitmap(np.ascontiguousarray(scene.atlas)),
                        "raw": True,
                        "wrap_mode": "clamp",
                    },
                    "roughness": {"type": "mesh_attribute", "name": "face_roughness"},
                    "metallic": {"type": "mesh_attribute", "name": "face_metallic"},
                    "specular": 0.4,
                },
            }
        )
        black = mi.load_dict(
            {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.5}}}
        )
        parts: dict[str, Any] = {"type": "scene"}
        faces = {"roughness": surface.roughness, "metallic": surface.metallic, "instance": surface.instance}
        parts["surface"] = self._mesh("surface", surface.mesh, material, None, faces)
        for k, light in enumerate(scene.lights):
            glow = mi.load_dict(
                {
                    "type": "area",
                    "radiance": {"type": "rgb", "value": list(light.radiance)},
                    "sampling_weight": 1.0 if light.instance else 1e-3,
                }
            )
            owner = {"instance": np.full(len(light.mesh.faces), light.instance)}
            parts[f"light{k}"] = self._mesh(f"light{k}", light.mesh, black, glow, owner)
        parts["sky"] = {
            "type": "envmap",
            "bitmap": mi.Bitmap(np.ascontiguousarray(scene.sky)),
            "to_world": mi.ScalarTransform4f(_SKY_TO_WORLD),
            "sampling_weight": 2.0,
        }
        self.loaded = mi.load_dict(parts)

    def _mesh(self, name: str, mesh: Mesh, bsdf: Any, emitter: Any, faces: dict[str, NDArray]) -> Any:
        """A mitsuba mesh with face attributes."""
        mi = self.mi
        props = mi.Properties()
        props["bsdf"] = bsdf
        if emitter is not None:
            props["emitter"] = emitter
        out = mi.Mesh(
            name,
            len(mesh.vertices),
            len(mesh.faces),
            has_vertex_normals=True,
            has_vertex_texcoords=True,
            props=props,
        )
        for key, values in faces.items():
            out.add_attribute(f"face_{key}", 1, values.astype(np.float32).ravel())
        p = mi.traverse(out)
        p["vertex_positions"] = mesh.vertices.astype(np.float32).ravel()
        p["faces"] = mesh.faces.astype(np.uint32).ravel()
        p["vertex_normals"] = mesh.normals.astype(np.float32).ravel()
        p["vertex_texcoords"] = mesh.uv.astype(np.float32).ravel()
        p.update()
        return out

    def labels(self, view: View, width: int, height: int) -> Labels:
        """One ray through the centre of each pixel."""
        if "scalar" in str(self.mi.variant()):
            found = self._hits_one_by_one(view, width, height)
        else:
            found = self._hits(view, width, height)
        valid, depth, normal, geometric, instance, albedo = found
        right, up, forward = view.basis()
        rays = view.rays(width, height)
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        normal, backface = face_viewer(normal, geometric, rays)
        rub = np.stack([normal @ right, normal @ up, -(normal @ forward)], -1)
        rub /= np.linalg.norm(rub, axis=-1, keepdims=True) + 1e-12
        shape = (height, width)
        return Labels(
            np.where(valid, depth, np.inf).astype(np.float32).reshape(shape),
            np.where(valid[:, None], rub, 0).astype(np.float32).reshape(*shape, 3),
            np.where(valid, np.round(instance), 0).astype(np.int64).reshape(shape),
            (backface & valid).reshape(shape),
            np.where(valid[:, None], albedo, 0.5).astype(np.float32).reshape(*shape, 3),
        )

    def _hits(self, view: View, width: int, height: int) -> tuple[NDArray, ...]:
        """Vectorised: valid, depth, shading normal, geometric normal, instance, albedo."""
        mi = self.mi
        import drjit as dr

        d = view.rays(width, height)
        origin = mi.Point3f(*view.origin)
        dr.make_opaque(origin)  # as literals they would be compiled into a new kernel for every view
        ray = mi.Ray3f(
            origin, mi.Vector3f(*(mi.Float(np.ascontiguousarray(d[:, k], np.float32)) for k in range(3)))
        )
        # The directions are not unit vectors but have 1 along the view axis, so that t is the depth z itself.
        si = self.loaded.ray_intersect(ray)
        valid = si.is_valid()
        instance = dr.select(valid, si.shape.eval_attribute_1("face_instance", si, valid), 0)
        albedo = dr.select(valid, si.bsdf().eval_diffuse_reflectance(si, valid), mi.Color3f(0.5))
        dr.eval(si, valid, instance, albedo)
        return (
            np.array(valid), np.array(si.t), np.array(si.sh_frame.n).T, np.array(si.n).T, np.array(instance),
            np.array(albedo).T,
        )  # fmt: skip

    def _hits_one_by_one(self, view: View, width: int, height: int) -> tuple[NDArray, ...]:
        """The same for the scalar tracer."""
        mi = self.mi
        rays = view.rays(width, height)
        n = len(rays)
        valid, depth, instance = np.zeros(n, bool), np.full(n, np.inf), np.zeros(n)
        normal, geometric, albedo = np.zeros((n, 3)), np.zeros((n, 3)), np.full((n, 3), 0.5)
        for i, d in enumerate(rays):
            si = self.loaded.ray_intersect(mi.Ray3f(mi.Point3f(*view.origin), mi.Vector3f(*d)))
            if si.is_valid():
                valid[i], depth[i], instance[i] = True, si.t, si.shape.eval_attribute_1("face_instance", si)
                normal[i], geometric[i] = np.array(si.sh_frame.n), np.array(si.n)
                albedo[i] = np.array(si.bsdf().eval_diffuse_reflectance(si))
        return valid, depth, normal, geometric, instance, albedo

    def render_image(
        self, view: View, width: int, height: int, spp: int, seed: int, labels: Labels
    ) -> NDArray[np.float32]:
        """Linear radiance h w 3: `spp` paths a pixel, denoised with albedo and normals as guides."""
        mi = self.mi
        right, up, forward = view.basis()
        to_world = np.eye(4)
        # Mitsuba's camera frame is left, up, forward.
        to_world[:3, 0], to_world[:3, 1], to_world[:3, 2], to_world[:3, 3] = -right, up, forward, view.origin
        film = {
            "type": "hdrfilm",
            "width": width,
            "height": height,
            "rfilter": {"type": "box"},
            "pixel_format": "rgb",
            "component_format": "float32",
        }
        sensor = mi.load_dict(
            {
                "type": "perspective",
                "fov": view.fov,
                "fov_axis": "x",
                "near_clip": 0.01,
                "far_clip": 1000.0,
                "to_world": mi.ScalarTransform4f(to_world),
                "film": film,
                "sampler": {"type": "independent", "sample_count": spp},
            }
        )
        integrator = mi.load_dict({"type": "path", "max_depth": DEPTH, "rr_depth": 2})
        raw = np.array(
            mi.render(self.loaded, sensor=sensor, integrator=integrator, spp=spp, seed=seed)
        ).astype(np.float32)
        raw = np.nan_to_num(raw.reshape(height, width, 3)).clip(0, 1e4)
        return denoise(raw, labels)


def face_viewer(normal: Array, geometric: Array, rays: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Normals flipped to the visible side of the surface, n 3 each; and where that is the back side.

    An interpolated normal may still face away at the rim of a curved shape: there it is tilted until it
    just faces the camera.
    """
    backface = (geometric * rays).sum(1) > 0
    n = np.where(backface[:, None], -normal, normal)
    away = (n * rays).sum(1)
    n = n - np.clip(away + 1e-3, 0, None)[:, None] * rays
    return n / (np.linalg.norm(n, axis=1, keepdims=True) + 1e-12), backface


def denoise(raw: NDArray[np.float32], labels: Labels) -> NDArray[np.float32]:
    """Open Image Denoise with guides; the raw image when it is not installed."""
    try:
        import mitsuba_oidn
    except ImportError:
        log.warning("mitsuba-oidn is missing: images stay noisy. pip install 'twofold[render]'")
        return raw
    guides = {"albedo": np.ascontiguousarray(labels.albedo), "normal": np.ascontiguousarray(labels.normals)}
    return np.array(mitsuba_oidn.denoise(raw, **guides, hdr=True)).astype(np.float32)
