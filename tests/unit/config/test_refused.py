"""Settings that would only fail, or silently do something else, once the ranks run."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrain.config import load
from distrain.config.explain import _one
from distrain.errors import ConfigError

BASE = "name: first\ndata:\n  train: a\n  val: b\n"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.name=resnet9", "model.name: 'resnet9' is not a model (did you mean 'resnet"),
        ("model.name='timm:'", "model.name: 'timm:' is not a model"),
        ("train.optimizer.lr=.inf", "train.optimizer.lr=inf is not a finite number"),
        ("train.optimizer.lr=.nan", "train.optimizer.lr=nan is not"),
        ("train.mean=[.nan, 0, 0]", "is not a finite number"),
        ("train.duration=0ep", "train.duration: '0ep' is no training at all"),
        ("train.duration=0st", "train.duration: '0st' is no training at all"),
        ("train.duration=1e999ep", "train.duration: '1e999ep' is too large"),
        ("comm.timeline_steps=[20, 10]", "comm.timeline_steps: [20, 10] are not a first and a last step"),
        ("comm.timeline_steps=[-1, 10]", "comm.timeline_steps: [-1, 10] are not"),
        ("comm.stall_seconds=.nan", "comm.stall_seconds"),
        ("launch.slurm.time=abc", "launch.slurm.time: 'abc' is not a time of Slurm"),
        ("launch.slurm.time=1:2:3:4", "launch.slurm.time: '1:2:3:4' is not a time of Slurm"),
        ("launch.env={'A B': x}", "holds characters that are not allowed here"),
        ("launch.env={1A: x}", "holds characters that are not allowed here"),
        ('launch.env={A: "x\\0y"}', "holds characters that are not allowed here"),
    ],
)
def test_refused_in_one_line(tmp_path: Path, override: str, said: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(BASE)
    with pytest.raises(ConfigError) as caught:
        load(path, [override])
    text = str(caught.value)
    assert said in text and text.startswith("command line: ") and "\n" not in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("time", [90, "30", "10:30", "24:00:00", "2-0", "2-12:00", "7-00:00:00", "UNLIMITED"])
def test_times_of_slurm(tmp_path: Path, time: str | int) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"{BASE}launch: {{slurm: {{time: '{time}'}}}}\n")
    assert load(path).launch.slurm.time == str(time)


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_yaml_nested_too_deep(tmp_path: Path, opening: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(opening * 3000)
    with pytest.raises(ConfigError, match="nested too deeply; close them"):
        load(path)


def test_a_character_that_no_text_file_has(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: a\x00b\n")
    with pytest.raises(ConfigError, match=r"characters are not allowed(.|\n)*; remove that character"):
        load(path)


def test_what_is_allowed_is_named_for_errors_without_words_of_their_own() -> None:
    """Of pydantic's errors the rare ones have no words here: the type of the setting is said."""
    for loc, said in (
        (("comm", "link_gbit"), "write number or null"),
        (("train", "milestones", 0), "see docs/configuration.md"),
        (("train", "schedule", "milestones", 1), "write list of duration"),
        (("data", "memory"), "write one of `node`, `disk`"),
    ):
        detail = {"type": "frozen_field", "loc": loc, "input": 1, "msg": "Field is frozen", "ctx": {}}
        assert said in _one(detail)[1]  # type: ignore[arg-type]
