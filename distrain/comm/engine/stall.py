"""The report about a collective that does not complete: who is missing, and what they do instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distrain.comm.operation import Completion
from distrain.comm.supervision.board import board
from distrain.comm.supervision.inquiry import Answer, Inquiry
from distrain.comm.supervision.members import Members, name

_STACKS = 4  # shown of ranks that answer, where nothing tells which of them is late


def inquire(inquiry: Inquiry, completion: Completion) -> str:
    """Ask all other members of the operation's group and say what they do, the missing ones first.

    Of what is no collective ask the ranks that it may wait for.

    Returns:
        Lines to add to the report; empty if nobody is to be asked.
    """
    operation = completion.operation
    call, members = operation.call, operation.members
    if call is None or members is None:
        return "".join(f"\n  {line}" for line in _peers(inquiry, operation.missing_ranks()))
    if operation.cause is not None:  # of which ranks keep no notes
        behind = " and ".join(f"number {outer.number}, {outer}" for outer in operation.cause.calls)
        what = f"{call}, is number {call.number} of a callback behind collective {behind}"
        return f"\n  {what}: which ranks have called it is not known"
    world = members.world
    answers = inquiry.ask([rank for rank in members.ranks if rank != world.rank])
    heard = _proved(members) | _heard(
        [board.facts(), *(a.facts for a in answers.values() if a.facts)], members
    )
    missing: list[str] = []
    present: list[int] = []
    for rank, answer in answers.items():
        theirs = answer.facts["calls"].get(members.key) if answer.facts else None
        if theirs and theirs["number"] >= call.number:
            present.append(rank)
        else:
            missing.append(_describe(name(world, rank), answer, theirs, heard.get(rank)))
    where = f"collective number {call.number} of {members.title}, {call}"
    here = "" if board.step is None else f", in training step {board.step} here"
    lines = [f"{where}{here}"]
    if missing:
        lines += [f"missing: {line}" for line in missing]
        lines += [f"waiting like this one: {_list(present)}"] if present else []
    else:
        lines.append("every rank has called it: a message is late, look at the network between these ranks")
    return "".join(f"\n  {line}" for line in lines)


def _peers(inquiry: Inquiry, ranks: Sequence[int]) -> list[str]:
    """Return a line about each of some ranks that does not answer; if all answer, where some of them are."""
    answers = inquiry.ask(ranks)
    silent = [f"{name(inquiry.world, r)}: {a.silence}" for r, a in answers.items() if a.facts is None]
    answering = [(rank, answer.facts) for rank, answer in answers.items() if answer.facts is not None]
    if silent:
        return [*silent, f"answering: {_list([r for r, _ in answering])}"] if answering else silent
    return [_place(name(inquiry.world, rank), "answers", facts) for rank, facts in answering[:_STACKS]]


def _heard(facts: Sequence[dict[str, Any]], members: Members) -> dict[int, dict[str, Any]]:
    """What others were told last by each rank, whether it can answer or not."""
    notes = [f["heard"][members.key] for f in facts if members.key in f["heard"]]
    return {members.ranks[note["rank"]]: note for note in notes}


def _proved(members: Members) -> dict[int, dict[str, Any]]:
    """What every rank has called, since it completed here: of ranks that cannot answer, and sent no note."""
    if members.key not in board.proved:
        return {}
    call, step = board.proved[members.key]
    note = {"number": call.number, "what": str(call), "step": step}
    return dict.fromkeys(members.ranks, note)


def _describe(who: str, answer: Answer, theirs: dict[str, Any] | None, note: dict[str, Any] | None) -> str:
    if answer.facts is None:
        last = ""
        if note is not None:
            step = f" in training step {note['step']}" if note["step"] >= 0 else ""
            last = f"; last heard of calling number {note['number']}, {note['what']}{step}"
        return f"{who}: {answer.silence}{last}"
    did = "has called nothing in this group yet"
    if theirs:
        last = f"number {theirs['number']}, {theirs['what']}, {theirs['age']:.1f} s ago"
        did = f"called {last}, and nothing since"
    return _place(who, did, answer.facts)


def _place(who: str, did: str, facts: dict[str, Any]) -> str:
    step = "" if facts["step"] is None else f"; is in training step {facts['step']}"
    stack = "".join(f"\n      {line}" for line in facts["stack"])
    return f"{who}: {did}{step}; its main thread:{stack}"


def _list(ranks: Sequence[int]) -> str:
    return "ranks " + ", ".join(map(str, ranks[:16])) + (", ..." if len(ranks) > 16 else "")
