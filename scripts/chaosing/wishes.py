"""What the submitters of a campaign ask for: tasks of every sort, drawn by chance from a seed.

A wish is a dictionary, so that it can be written into a history and be asked for again by who comes
after a killed submitter. What each attempt of a task shall do stands in its data: its plan.
"""

import json
import uuid
from random import Random
from typing import Any, cast

from taskdist.client.saying import Said
from taskdist.core.task import Backoff
from taskdist.reports import RetryPause

QUEUES = ("default", "other")
KINDS = ("quick", "slow")
TIERS = ("paid", "free")

Wish = dict[str, Any]

ACTS = {"ok": 83, "fail": 9, "retry": 2, "fatal": 1, "long": 3, "hang": 1, "stubborn": 1}
"""What an attempt does, and how often of a hundred: it works for a moment; fails; fails and says
when to try again; fails for good; takes longer than a lease; never ends; never ends and does not
stop."""

RUN_TIMEOUT_S = 1.0
"""Of tasks that may hang."""


def draw(rng: Random, ref: str) -> Wish:
    """The next wish, whose name in the histories is `ref`."""
    plan = rng.choices(list(ACTS), weights=list(ACTS.values()), k=rng.randint(1, 4))
    wish: Wish = {
        "ref": ref,
        "plan": plan,
        "bytes": rng.choice((0, 100, 2_000)) if rng.random() < 0.97 else 200_000,
        "work_s": round(rng.uniform(0.02, 0.45), 3),
        "user_tier": rng.choices(TIERS, weights=(40, 60))[0],
        "est_processing_time_s": rng.choice((0.0, 0.5, 1.0, round(rng.uniform(0, 9), 6))),
        "kind": rng.choices(KINDS, weights=(80, 20))[0],
        "queue": rng.choices(QUEUES, weights=(75, 25))[0],
        "max_retries": rng.choice((None, None, 0, 1, 2)),
    }
    if rng.random() < 0.4:
        wish["idempotency_key"] = f"key of {ref}"
    else:
        wish["task_id"] = str(uuid.UUID(bytes=rng.randbytes(16), version=4))
    if {"hang", "stubborn"} & set(plan):
        wish["run_timeout_s"] = RUN_TIMEOUT_S
    if rng.random() < 0.1:
        wish["backoff"] = rng.choice((["FIXED", 0.2, None, 0], ["EXPONENTIAL", 0.1, 1.0, 50]))
    if rng.random() < 0.08:
        wish["delay_s"] = round(rng.uniform(0.2, 2), 3)
    if rng.random() < 0.08:
        wish["deadline_s"] = round(rng.uniform(2.5, 6), 3)
    if rng.random() < 0.05:
        wish["lease_s"] = round(rng.uniform(1, 2), 3)
    return wish


def data_of(wish: Wish) -> bytes:
    """The data of its task: what the agent has to know, and bytes of all values."""
    known = {"ref": wish["ref"], "plan": wish["plan"], "work_s": wish["work_s"]}
    return json.dumps(known).encode() + b"\n" + Random(wish["ref"]).randbytes(wish["bytes"])


def plan_of(data: bytes) -> dict[str, Any]:
    """What an agent finds in it."""
    known: dict[str, Any] = json.loads(data.split(b"\n", 1)[0])
    return known


def said(wish: Wish) -> Said:
    """The wish as what a client is told."""
    told = {name: wish[name] for name in Said.__annotations__ if name in wish}
    if "backoff" in told:
        kind, initial_s, max_s, jitter_percent = told["backoff"]
        told["backoff"] = RetryPause(Backoff[kind], initial_s, max_s, jitter_percent)
    return cast(Said, told | {"data": data_of(wish)})
