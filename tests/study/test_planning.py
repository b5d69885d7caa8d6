"""The planner as a process of its own."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from servolt.errors import EngineTimeoutError, InvalidInputError, ModelNotFoundError
from servolt.study.planning import PlanningProcess


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def test_plans_and_errors_come_back_and_one_request_that_ends_badly_leaves_the_next_alone() -> None:
    async def scenario() -> None:
        process = PlanningProcess()
        try:
            plain = json.loads(await process.plan({"deployment": "guide"}))
            assert (plain["schema"], plain["verdict"]) == ("servolt.plan/1", "fits")
            with pytest.raises(ModelNotFoundError, match="no-such"):
                await process.plan({"deployment": "no-such"})
            with pytest.raises(InvalidInputError, match="owner"):
                await process.plan({"deployment": "/etc/passwd"})
            asked = [process.plan({"deployment": "guide", "workload": {"input_len": size}}) for size in range(1, 9)]
            found = [json.loads(one)["workload"]["input_len"] for one in await asyncio.gather(*asked)]
            assert found == list(range(1, 9))

            left = asyncio.create_task(process.plan({"deployment": "guide"}))
            await asyncio.sleep(0)
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            again = json.loads(await process.plan({"deployment": "guide", "workload": {"input_len": 77}}))
            assert again["workload"]["input_len"] == 77  # and not the answer that nobody read
        finally:
            await process.close()

    run(scenario())


def test_a_plan_that_takes_too_long_is_ended_and_says_so() -> None:
    async def scenario() -> None:
        process = PlanningProcess(timeout_s=0.001)
        with pytest.raises(EngineTimeoutError, match="took more than"):
            await process.plan({"deployment": "guide"})
        await process.close()

    run(scenario())
