"""Messages of other lengths than their receiver expects.

Between two ranks: of a message to oneself Open MPI cuts off what is too much, and does not tell.
"""

from __future__ import annotations

import numpy as np
import pytest

from distrain.comm import runtime
from distrain.comm.messages.plain import Message, MessageOperation
from distrain.errors import CommError
from distrain.world import World


@pytest.mark.ranks(at_least=2)
@pytest.mark.parametrize(
    ("sent", "problem"), [(5, "sent 5 bytes where 8"), (12, "sent more bytes than the 8")]
)
def test_a_message_of_another_length_names_its_sender(world: World, sent: int, problem: str) -> None:
    state = runtime.current()
    comm = state.engine.call(state.comm.Dup)
    sender = (world.rank - 1) % world.size
    operation = MessageOperation(
        "recv",
        comm,
        3,
        sends=[Message((world.rank + 1) % world.size, np.zeros(sent, np.uint8))],
        receives=[Message(sender, np.zeros(8, np.uint8))],
    )

    def fail() -> str:  # in the engine's thread, but outside of its rounds: an error there ends the job
        operation.start()
        with pytest.raises(CommError) as caught:
            while not operation.progress():
                pass
        return str(caught.value)

    assert f"rank {sender} {problem}" in state.engine.call(fail)
    state.engine.call(comm.Free)
