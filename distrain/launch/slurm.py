"""Slurm: fills in ``launch/slurm/train.sbatch`` and submits it."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from distrain.errors import LaunchError
from distrain.launch.job import Command
from distrain.launch.settings import SlurmSettings


@dataclass(frozen=True)
class Script:
    """What goes into the marked blocks of the template.

    Attributes:
        name: of the job.
        work_dir: relative paths of the configuration start here.
        run_dir: the run folder.
        python: the Python that runs the ranks.
        ranks: in all.
        start: starter and options; the rank's command follows them.
        path: folder to put in front of PATH, or empty.
        env: environment of every rank.
        settings: what is asked of Slurm.
    """

    name: str
    work_dir: str
    run_dir: str
    python: str
    ranks: int
    start: Command
    path: str
    env: Mapping[str, str]
    settings: SlurmSettings


def template() -> str:
    """Return ``launch/slurm/train.sbatch``, of the checkout or as installed with the package."""
    return (resources.files("distrain.launch") / "scripts" / "slurm" / "train.sbatch").read_text()


def render(script: Script) -> str:
    """Return the complete sbatch script."""
    text = template()
    for block, lines in (("options", _options(script)), ("settings", _settings(script))):
        pattern = re.compile(rf"(^# >>> {block}\b[^\n]*\n).*?(^# <<< {block}$)", re.MULTILINE | re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise LaunchError(
                "launch/slurm/train.sbatch", f"the block {block!r} is not marked once", "restore its markers"
            )
        filled = "".join(line + "\n" for line in lines)
        text = pattern.sub(lambda match, filled=filled: match[1] + filled + match[2], text)  # type: ignore[misc]
    return text


def _options(script: Script) -> list[str]:
    s = script.settings
    log = script.run_dir.replace("%", "%%") + "/slurm-%j.out"
    options: list[tuple[str, object]] = [
        ("job-name", script.name),
        ("nodes", s.nodes),
        ("ntasks-per-node", s.ranks_per_node),
        ("cpus-per-task", s.cpus_per_rank),
        ("gpus-per-node", s.gpus_per_node),
        ("time", s.time),
        ("partition", s.partition),
        ("account", s.account),
        ("qos", s.qos),
        ("constraint", s.constraint),
        ("mail-user", s.mail_user),
        ("mail-type", "END,FAIL,REQUEUE" if s.mail_user else None),
        ("output", log),
        ("signal", f"B:USR1@{math.ceil(s.grace_seconds)}"),
    ]
    lines = [f"#SBATCH --{name}={_word(str(value))}" for name, value in options if value is not None]
    return [*lines, *(f"#SBATCH {extra}" for extra in s.extra)]


def _word(value: str) -> str:
    """Quote a value for a ``#SBATCH`` line, whose reader knows double quotes and backslashes."""
    if re.fullmatch(r"[\w@%+:,./=-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _settings(script: Script) -> list[str]:
    exports = {**script.start.env, **script.env}
    return [
        f"WORK_DIR={shlex.quote(script.work_dir)}",
        f"RUN_DIR={shlex.quote(script.run_dir)}",
        f"PYTHON={shlex.quote(script.python)}",
        f"RANKS={script.ranks}",
        f"MAX_RESTARTS={script.settings.max_restarts}",
        "setup() {",
        *(f"  {line}" for text in script.settings.setup for line in text.splitlines()),
        *([f'  export PATH={shlex.quote(script.path)}:"$PATH"'] if script.path else []),
        *(f"  export {name}={shlex.quote(value)}" for name, value in exports.items()),
        "  :",
        "}",
        "start() {",
        f'  exec {shlex.join(script.start.argv)} "$@"',
        "}",
    ]


def submit(path: Path) -> str | None:
    """Submit a script; return the job's number, or None where this machine has no sbatch.

    Raises:
        LaunchError: sbatch refuses the script.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        return None
    answer = subprocess.run([sbatch, "--parsable", str(path)], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        reason = answer.stderr.strip().removeprefix("sbatch: error: ")
        raise LaunchError(
            str(path),
            f"sbatch refuses it: {reason}",
            f"correct launch.slurm, or edit it and run: sbatch {path}",
        )
    return answer.stdout.strip().split(";")[0]
