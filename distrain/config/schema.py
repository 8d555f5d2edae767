"""The schema of a run: the settings of all rooms under one roof."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from distrain.comm.settings import CommSettings
from distrain.data.settings import DataSettings
from distrain.launch.settings import LaunchSettings
from distrain.settings import Settings
from distrain.train.settings import ModelSettings, TrainSettings


class RunConfig(Settings):
    """One run: what is trained, on which data, how, and where."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="names the run folder: letters, digits, dot, dash and underscore",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="all randomness of the run follows from it")
    model: ModelSettings = ModelSettings()
    data: DataSettings
    train: TrainSettings = TrainSettings()
    comm: CommSettings = CommSettings()
    launch: LaunchSettings = LaunchSettings()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the YAML file, for editors (completion, checks while typing)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunConfig.model_json_schema()}
