"""The recipes load, the reference is current, the JSON Schema describes every setting."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from distrain import units
from distrain.config import dump, load
from distrain.config.explain import suggest, walk
from distrain.config.reference import markdown
from distrain.config.schema import json_schema
from distrain.units import Duration

ROOT = Path(__file__).parents[3]


def test_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == markdown(), "run: distrain config reference > docs/configuration.md"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_recipes_load(path: Path) -> None:
    assert load(path).name == path.stem


def test_the_imagenet_recipe_is_the_published_one() -> None:
    config = load(ROOT / "configs" / "resnet50_imagenet.yaml")
    recipe = config.train
    assert config.model.name == "resnet50" and config.model.zero_init_last_gamma
    assert config.data.batch_per_rank == 256 and config.data.image_size == 224
    assert recipe.duration == Duration(90, "ep") and recipe.schedule.warmup == Duration(5, "ep")
    assert (recipe.optimizer.lr, recipe.optimizer.lr_batch) == (0.1, 256)
    assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.9, 1e-4)
    assert recipe.schedule.milestones == tuple(Duration(e, "ep") for e in (30, 60, 80))
    assert recipe.label_smoothing == 0.1


def test_json_schema_is_plain_json_and_forbids_unknown_keys() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["required"]) == {"name", "data"}
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())


def test_every_setting_is_suggested_for_itself() -> None:
    for path in walk():
        found = suggest(path)
        assert found is not None and found[-1] == path[-1]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("train.epochs_duration", "train.duration"),
        ("zzz", None),
        ("train.lr", "train.optimizer.lr"),
        ("learning.lr", "train.optimizer.lr"),
        ("batch_per_rank", "data.batch_per_rank"),
        ("data.batchperrank", "data.batch_per_rank"),
        ("comm.colours", "comm.colors"),
        ("launch.slurm.name", "name"),
        ("trian", "train"),
    ],
)
def test_suggestions(wrong: str, meant: str | None) -> None:
    found = suggest(tuple(wrong.split(".")))
    assert (".".join(found) if found else None) == meant


def defaults_of_the_page() -> list[tuple[str, str]]:
    """(setting, default as it is documented) of every setting that has one."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| [^|]+ \| (`.*?`|\*\*required\*\*) \|", markdown(), re.MULTILINE)
    assert len(rows) == sum(".".join(path) not in GROUPS for path in walk())
    return [(name, default.strip("`")) for name, default in rows if default != "**required**"]


GROUPS = {".".join(path[:-1]) for path in walk()}


@pytest.mark.parametrize(("name", "default"), defaults_of_the_page())
def test_every_documented_default_can_be_written(tmp_path: Path, name: str, default: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: first\ndata: {train: a, val: b}\n")
    assert dump(load(path, [f"{name}={default}"])) == dump(load(path))


def test_quantities_are_known_by_their_types_and_named_alike() -> None:
    kinds = dict(re.findall(r"^\| `(?:[a-z_]+\.)*([a-z_]+)` \| ([^|]+) \|", markdown(), re.MULTILINE))
    for name, kind in kinds.items():
        assert name.endswith("_bytes") == kind.startswith("size"), (name, kind)
        assert name.endswith("_seconds") == (kind == "time"), (name, kind)


def test_the_page_lists_every_unit() -> None:
    header = markdown().split("## The run")[0].lower()
    for unit in (*units._BYTES, *units._SECONDS, "ep", "st"):
        assert not unit or f"`{unit}`" in header, unit
