"""What is shipped: the model inside the package, and what a clone needs to be used."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import twofold
from twofold.checkpoints import EMBEDDED, digest, model_weight_files
from twofold.cli.console import CommandError
from twofold.cli.train import find_recipe
from twofold.train import recipe_loader

ROOT = Path(__file__).parents[1]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version() -> None:
    assert version("twofold") == twofold.__version__


def test_constraints_hold_for_everyone() -> None:
    """No build tag and no address, a pin for everything that is required, and never torchvision."""
    text = (ROOT / "constraints.txt").read_text()
    pins = {
        line.split("==")[0].lower() for line in text.splitlines() if "==" in line and not line.startswith("#")
    }
    assert "+c" not in text
    assert "://" not in text
    arguments = [
        *project()["dependencies"],
        *(r for e in project()["optional-dependencies"].values() for r in e),
    ]
    names = {r.split(";")[0].split(">=")[0].split("==")[0].split("[")[0].strip().lower() for r in arguments}
    assert names - {"twofold"} <= pins
    assert not pins & {"torchvision", "timm"}


def test_requirements_are_ranges() -> None:
    for requirement in project()["dependencies"]:
        assert "==" not in requirement
        assert "@" not in requirement


def test_doctor_lists_every_requirement() -> None:
    from twofold.cli.doctor import CORE, EXTRAS

    assert [r.split(">=")[0] for r in project()["dependencies"]] == list(CORE)
    assert set(EXTRAS) == set(project()["optional-dependencies"]) - {"test", "dev", "docs"}


def test_recipes_come_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the wheel, where `shipped` searches first, and are found by name from any folder and in a clone."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert tool["wheel"]["force-include"] == {"recipes": "twofold/recipes"}
    assert "/recipes" in tool["sdist"]["include"]
    monkeypatch.chdir(tmp_path)
    for name in ("table4:lora_16", "recipes/table4.py:lora_16", "peers:dmp_depth"):
        assert find_recipe(name).denoiser.unet == "lora"
    installed = tmp_path / "site" / "twofold"
    shutil.copytree(ROOT / "recipes", installed / "recipes")
    monkeypatch.setattr(recipe_loader, "_PACKAGE", installed)
    assert recipe_loader.shipped_folder() == installed / "recipes"
    assert find_recipe("genpercept:depth").name == "genpercept-depth"
    # One's own of that name comes first.
    (tmp_path / "recipes").mkdir()
    own = (ROOT / "recipes" / "table5.py").read_text().replace("from genpercept import", "from base import")
    (tmp_path / "recipes" / "table5.py").write_text(own)
    shutil.copy(ROOT / "recipes" / "genpercept.py", tmp_path / "recipes" / "base.py")
    assert recipe_loader.find_file("table5") == Path("recipes/table5.py")
    assert find_recipe("table5:hypersim_vkitti").loop.steps == 30000
    with pytest.raises(CommandError, match=r"did you mean.*genpercept.*table1"):
        find_recipe("genpercpt:depth")


def test_a_sample_photograph_exists() -> None:
    pytest.importorskip("skimage")
    program = [sys.executable, str(ROOT / "scripts" / "sample_photo.py")]
    path = subprocess.run(program, capture_output=True, text=True, check=True).stdout.strip()
    assert twofold.read_image(path).shape == (3, 500, 741)


shipped = pytest.mark.skipif(not EMBEDDED.is_dir(), reason="the model is not trained yet")


@shipped
def test_the_shipped_model_is_small_and_what_was_recorded() -> None:
    files = [f for f in EMBEDDED.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 60e6
    assert {f.suffix for f in files} <= {".safetensors", ".json", ".txt", ".md"}
    assert (EMBEDDED / "digest.txt").read_text().strip() == digest(model_weight_files(EMBEDDED))
    assert (EMBEDDED / "README.md").is_file()


@shipped
def test_the_shipped_model_sees_that_a_sphere_is_nearer_than_the_wall() -> None:
    from world import sphere

    sample = sphere(0, size=192)
    depth = twofold.load("embedded", task="depth")(sample.image).map
    target = sample.targets["depth"]
    assert depth[target < 1.9].mean() < depth[target >= 2].mean()
