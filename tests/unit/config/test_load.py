"""Loading a run's YAML: values, overrides, and errors that say what to write instead."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.config import RunConfig, document, dump, load
from distrain.errors import ConfigError
from distrain.units import Duration

BASE = "name: first\ndata:\n  train: a\n  val: b\n"


def read(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return load(path, overrides)


def test_file_then_overrides_then_defaults(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        BASE + "train:\n  duration: 5ep\n  optimizer: {weight_decay: 1e-5}\n",
        "train.duration=20st",
        "comm.segment_bytes=64 KiB",
        "launch.slurm.time=24:00:00",
        "launch.env={OMP_NUM_THREADS: 4, NAME: yes}",
        "data.augment.scale=[0.5, 1]",
        "comm.abort_seconds=.inf",
    )
    assert config.train.duration == Duration(20, "st")
    assert config.train.optimizer.weight_decay == 1e-5
    assert config.comm.segment_bytes == 65536
    assert config.launch.slurm.time == "24:00:00"
    assert config.launch.env == {"OMP_NUM_THREADS": "4", "NAME": "yes"}
    assert config.data.augment.scale == (0.5, 1.0)
    assert math.isinf(config.comm.abort_seconds)
    assert config.train.optimizer.momentum == 0.9


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            BASE + "train:\n  optimizer:\n    lr: abc\n",
            [],
            "{path}:7: train.optimizer.lr='abc' is not a number; write a number, e.g. 0.1",
        ),
        (
            BASE,
            ["train.lr=3"],
            "command line: unknown setting 'train.lr' (did you mean 'train.optimizer.lr'?); correct the key",
        ),
        (
            BASE + "train:\n  optimiser: {}\n",
            [],
            "{path}:6: unknown setting 'train.optimiser' (did you mean 'train.optimizer'?); correct the key",
        ),
        (
            BASE + "epochs: 3\n",
            [],
            "{path}:5: unknown setting 'epochs'; `distrain config schema` lists all keys",
        ),
        (
            BASE + "name: again\n",
            [],
            "{path}:5: key 'name' is already set on line 1 and may be given only once; remove one of the two",
        ),
        (
            BASE,
            ["train.duration=5parsecs"],
            "command line: train.duration: '5parsecs' has the unknown unit 'parsecs'; "
            "use 'ep' (epochs) or 'st' (steps)",
        ),
        (
            "name: first\n",
            [],
            "{path}: the setting 'data' is missing and has no default; add data.train and data.val to "
            "the file, or give data.train=VALUE on the command line",
        ),
        (
            BASE,
            ["seed"],
            "command line: 'seed' is not of the form key=value; write e.g. train.duration=2ep",
        ),
        (
            BASE,
            ["name.x=1"],
            "command line: name.x cannot be set, since name='first' is a single value; "
            "check the spelling of the key",
        ),
        (
            BASE,
            ["launch.runs=2024"],
            "command line: launch.runs=2024 is not text; "
            "write it in quotes, as '\"2024\"' on the command line",
        ),
        (BASE, ["data.threads=0"], "command line: data.threads=0 is less than 1; write 1 or more"),
        (
            BASE,
            ["data.memory=ram"],
            "command line: data.memory='ram' is not one of the choices; choose 'node' or 'disk'",
        ),
        ("- 1\n", [], "{path}: the file is not a mapping of settings; write lines like `name: first`"),
        (
            "a: [\n",
            [],
            "{path}:2: not valid YAML: expected the node content, but found '<stream end>'; write it as "
            "`key: value`, with what is opened closed and quotes around text of special characters",
        ),
        (
            "name: !!python/object/apply:os.getcwd []\n",
            [],
            "{path}:1: not valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd'; write it as "
            "`key: value`, with what is opened closed and quotes around text of special characters",
        ),
    ],
)
def test_errors(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, *overrides)
    assert str(caught.value) == message.format(path=tmp_path / "x.yaml")
    assert caught.value.exit_code == 2


def test_all_wrong_settings_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, BASE + "train:\n  optimizer: 3\n", "seed=-1", "data.memory=ram")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path / 'x.yaml'}: 3 settings are wrong"
    assert any(
        line.startswith(f"  {tmp_path / 'x.yaml'}:6: train.optimizer=3 is not a group") for line in lines
    )
    assert "  command line: seed=-1 is less than 0; write 0 or more" in lines
    assert "  command line: data.memory='ram' is not one of the choices; choose 'node' or 'disk'" in lines


@pytest.mark.parametrize("text", ["", "name: \x00", "a: &x [*x]\n", "? [1]\n: 2\n", "\tname: x\n"])
def test_odd_files_are_config_errors(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        read(tmp_path, text)


def test_missing_file_folder_and_binary(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="this is a folder"):
        load(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "b.yaml")


def test_dump_loads_back_to_an_equal_config(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        BASE,
        "train.schedule.milestones=[1ep, 2.5ep, 30st]",
        "comm.abort_seconds=.inf",
        "launch.slurm.setup=['module load x', \"echo 'a' # \\\"b\\\"\"]",
        "launch.env={A: '1e5', B: 'true', C: '', D: '~', E: '24:00:00'}",
        "train.optimizer.weight_decay=1e-30",
    )
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(tmp_path / "again.yaml") == config


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_rendered_yaml_parses_back(value: object) -> None:
    again, _ = document.parse(document.render(value), "x")
    assert again == value and type(again) is type(value)


@pytest.mark.parametrize("name", ["a/b", "../a", "", ".", "-x", "a b", "x" * 101])
def test_names_that_could_not_be_a_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        read(tmp_path, BASE, f"name={document.render(name).splitlines()[0]}")
