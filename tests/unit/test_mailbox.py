"""The protocol between a Tune actor and the workers of its slot, without Ray: the mailbox is plain asyncio."""

from __future__ import annotations

import asyncio
import json

from orchestrator.slot import Mailbox


def test_a_worker_waits_until_the_driver_asks_for_the_next_event() -> None:
    async def scene() -> None:
        box = Mailbox()
        await box.put("job")
        assert await box.take(0, rank=0) == (1, "job")
        post = asyncio.create_task(box.post(1, {"report": "r1"}))
        assert await box.next_event(1.0) == {"report": "r1"}
        await asyncio.sleep(0.05)
        assert not post.done()
        following = asyncio.create_task(box.next_event(1.0))
        assert await asyncio.wait_for(post, 1.0) is True
        assert await box.post(1, {"result": "x", "done": True}) is False
        assert await following == {"result": "x", "done": True}

    asyncio.run(scene())


def test_a_new_job_makes_the_workers_leave_the_old_one() -> None:
    async def scene() -> None:
        box = Mailbox()
        await box.put("old")
        await box.take(0, rank=0)
        post = asyncio.create_task(box.post(1, {"report": "r1"}))
        assert await box.next_event(1.0) == {"report": "r1"}
        await box.put("new")  # the old one was pruned
        assert await asyncio.wait_for(post, 1.0) is False
        assert await box.post(1, {"report": "late"}) is False
        assert await box.take(1, rank=0) == (2, "new")
        assert await box.take(1, rank=1) == (2, "new")
        assert await box.next_event(0.05) is None

    asyncio.run(scene())


def test_the_trial_of_a_group_that_died_is_told_so() -> None:
    async def scene() -> None:
        box = Mailbox()
        await box.put("job")
        await box.take(0, rank=0)
        restarted = asyncio.create_task(box.take(0, rank=0))  # a fresh worker has seen nothing
        event = await box.next_event(1.0)
        assert event is not None
        assert event["done"]
        assert json.loads(event["failure"])["origin"] == "infrastructure"
        assert not restarted.done()
        await box.put("again")
        assert await asyncio.wait_for(restarted, 1.0) == (2, "again")

    asyncio.run(scene())


def test_a_job_that_no_worker_takes_is_seen() -> None:
    async def scene() -> None:
        box = Mailbox()
        await box.put("first")
        await box.take(0, rank=0)
        await box.post(1, {"result": "x", "done": True})
        await box.put("second")
        assert not await box.is_taken()
        await box.take(1, rank=0)
        assert await box.is_taken()

    asyncio.run(scene())


def test_closing_sends_the_workers_home() -> None:
    async def scene() -> None:
        box = Mailbox()
        waiting = asyncio.create_task(box.take(0, rank=0))
        await asyncio.sleep(0)
        await box.close()
        assert await asyncio.wait_for(waiting, 1.0) is None

    asyncio.run(scene())
