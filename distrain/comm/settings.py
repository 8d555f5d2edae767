"""Settings of the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from distrain.settings import Bytes, Seconds, Settings


class CommSettings(Settings):
    """How gradients travel between ranks."""

    algorithm: str = Field(
        "auto",
        description="name of a Schedule (ring, multicolor_ring, ...); auto: by size of payload, from the "
        "table of `distrain tune` where there is one, else from formulas. Ranks of one node that combine in "
        "its memory (node_memory) use none. Between nodes with several ranks each only the hierarchical ones "
        "use that memory: the name of another one switches it off",
    )
    colors: int | None = Field(
        None,
        ge=1,
        le=16,
        description="independent rings (or trees) that carry parts of the payload; null: chosen with the "
        "algorithm, and for a named one by the same rule: a ring for each rail, up to four trees, one color "
        "for the others",
    )
    segment_bytes: Bytes | None = Field(
        None,
        gt=0,
        description="longest message on the wire; longer slots are pipelined. Best below the size from which "
        "the MPI asks the receiver first (Open MPI over TCP: 65536 with its header); null: chosen",
    )
    tune_table: str | None = Field(
        None, description="file of `distrain tune`; null: distrain/tune.json in the user's cache folder"
    )
    rails: int | None = Field(
        None, ge=1, le=64, description="network ports of a node; null: counted (interfaces with an address)"
    )
    link_gbit: float | None = Field(
        None,
        gt=0,
        description="Gbit/s of a network port, for the choice of the algorithm; null: as the kernel says of "
        "the slowest. Set it where the kernel does not know, as on many virtual machines",
    )
    node_memory: bool = Field(
        True, description="ranks of one node combine in its memory; false: by messages, as between nodes"
    )
    inside_node: Literal["memory", "nccl"] = Field(
        "memory",
        description="how gradients of GPUs are combined inside a node, before they travel between nodes: in "
        "the memory of the host, or by NCCL among the GPUs",
    )
    device_pointers: Literal["auto", "never", "always"] = Field(
        "auto",
        description="whether MPI gets pointers of a GPU, or copies in the memory of the host; auto: pointers "
        "if the MPI says that it takes them; always: without asking it, which crashes if it does not",
    )
    check: bool = Field(
        True, description="ranks compare what they call; those that disagree are named at once"
    )
    bucket_bytes: Bytes | None = Field(
        None,
        gt=0,
        description="size of the gradient buckets of DDP; null: chosen from the sizes of the gradients, the "
        "hosts and the speed of their links, smaller towards the end of a step",
    )
    timeline: bool = Field(
        False,
        description="write a trace of every rank into the run folder, for ui.perfetto.dev; messages are then "
        "driven by Python, so that each can be recorded, and cost more",
    )
    timeline_steps: tuple[int, int] | None = Field(
        None, description="record these training steps only, both included: [100, 120]; null: all"
    )
    stall_seconds: Seconds = Field(
        60.0, gt=0, description="a collective older than this is reported, with who is missing"
    )
    abort_seconds: Seconds = Field(600.0, gt=0, description="a collective older than this ends the job")
    sync: Literal["distrain", "gloo", "nccl", "mpi", "horovod"] = Field(
        "distrain", description="who synchronises gradients; all else travels by distrain"
    )
    wire_dtype: Literal["as_is", "fp16", "bf16"] = Field(
        "as_is", description="type in which float32 gradients travel; sums are float32 whatever it is"
    )

    @field_validator("timeline_steps")
    @classmethod
    def _steps_in_order(cls, steps: tuple[int, int] | None) -> tuple[int, int] | None:
        if steps is not None and not 0 <= steps[0] <= steps[1]:
            raise ValueError(f"{list(steps)} are not a first and a last step; write e.g. [100, 120]")
        return steps

    @model_validator(mode="after")
    def _check_sync(self) -> CommSettings:
        if self.inside_node != "memory" and self.sync != "distrain":
            raise ValueError(
                f"inside_node={self.inside_node} needs sync=distrain, not {self.sync}; leave one of them out"
            )
        if self.wire_dtype != "as_is" and self.sync != "distrain":
            raise ValueError(
                f"wire_dtype={self.wire_dtype} needs sync=distrain, not {self.sync}; leave one of them out"
            )
        return self
