"""The law of the replay engine, and that its batch keeps it on a made-up clock."""

import asyncio
import selectors
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from servolt.engines.replay_batch import Batch, Sequence, Token
from servolt.engines.replay_law import Law, read_law

LAW = Law(prefill_s_per_token=0.25, step_s=1.0, step_s_per_sequence=0.5, prefix_block_tokens=4)


def test_the_law_is_arithmetic() -> None:
    assert LAW.prefill(8) == 2.0
    assert LAW.step(1) == 1.5
    assert LAW.step(4) == 3.0
    assert LAW.throughput(4) == pytest.approx(4 / 3)


def test_a_name_changes_the_law() -> None:
    assert read_law("replay") == Law()
    assert read_law("replay?step_s=0.5&output_tokens=7") == replace(Law(), step_s=0.5, output_tokens=7)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("replay?speed=3", "the law has no speed; it has load_s"),
        ("replay?step_s=fast", "step_s is a number, not 'fast'"),
        ("replay?step_s=-1", "step_s is at least 0, not -1"),
        ("replay?step_s=nan", "step_s is at least 0, not nan"),
        ("replay?output_tokens=1.5", "output_tokens is a whole number, not '1.5'"),
        ("replay?output_tokens=0", "output_tokens is at least 1, not 0"),
        ("replay?step_s=0&step_s_per_sequence=0", "a step takes some time"),
    ],
)
def test_a_law_that_is_none_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        read_law(name)
    assert reason in str(refused.value)


class MadeUpClock(asyncio.SelectorEventLoop):
    """A loop in which waiting takes no time and time passes by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        loop = self

        class Jump(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                loop.now += max(0.0, timeout or 0.0)
                return super().select(0)

        super().__init__(Jump())

    def time(self) -> float:
        return self.now


def on_made_up_clock(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=MadeUpClock) as runner:
        runner.run(work)


async def served(sequence: Sequence) -> list[tuple[float, Token]]:
    """Its tokens with the times at which they came."""
    clock, found = asyncio.get_running_loop().time, []
    while (token := await sequence.tokens.get()) is not None:
        found.append((round(clock(), 6), token))
    return found


def test_one_sequence_takes_its_prefill_and_then_a_step_for_each_token() -> None:
    async def work() -> None:
        batch = Batch(LAW, 4, caching=True)
        running = asyncio.create_task(batch.run())
        sequence = Sequence(range(10, 18), 4)
        batch.add(sequence)
        assert [at for at, _ in await served(sequence)] == [2.0, 3.5, 5.0, 6.5]
        assert sequence.prefill_s == 2.0
        assert batch.counters["busy_s"] == 6.5
        assert batch.counters["output_tokens"] == 4
        assert batch.counters["decode_calls"] == 3
        running.cancel()

    on_made_up_clock(work())


def test_a_prefill_holds_up_those_who_run_and_then_they_share_the_steps() -> None:
    async def work() -> None:
        batch = Batch(LAW, 4, caching=False)
        running = asyncio.create_task(batch.run())
        first, second = Sequence(range(10, 14), 3), Sequence(range(20, 24), 3)
        batch.add(first)
        batch.add(second)
        times = await asyncio.gather(served(first), served(second))
        assert [[at for at, _ in each] for each in times] == [[1.0, 4.0, 6.0], [2.0, 4.0, 6.0]]
        assert [token.decode_s for _, token in times[0]] == [0.0, 3.0, 5.0]
        running.cancel()

    on_made_up_clock(work())


def test_who_finds_no_place_waits() -> None:
    async def work() -> None:
        batch = Batch(LAW, 1, caching=False)
        running = asyncio.create_task(batch.run())
        first, second = Sequence(range(4), 2), Sequence(range(4), 1)
        batch.add(first)
        batch.add(second)
        assert [at for at, _ in await served(first)] == [1.0, 2.5]
        assert [at for at, _ in await served(second)] == [3.5]
        running.cancel()

    on_made_up_clock(work())


def test_whole_blocks_that_were_seen_cost_nothing_again_but_one_token_always_does() -> None:
    async def work() -> None:
        batch = Batch(LAW, 1, caching=True)
        running = asyncio.create_task(batch.run())
        cached = []
        for prompt in ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 9, 9, 9, 9], [1, 2, 3, 4, 9, 9, 9, 9], [2, 2, 3, 4, 5]):
            sequence = Sequence(prompt, 1)
            batch.add(sequence)
            await served(sequence)
            cached.append(sequence.cached)
        assert cached == [0, 4, 7, 0]
        assert batch.counters["prompt_tokens"] + batch.counters["cached_prompt_tokens"] == 6 + 8 + 8 + 5
        running.cancel()

    on_made_up_clock(work())


def test_a_client_that_leaves_frees_its_place_in_the_queue_in_prefill_and_in_decode() -> None:
    async def work() -> None:
        batch = Batch(LAW, 1, caching=False)
        running = asyncio.create_task(batch.run())
        decoding, prefilling, waiting, last = (Sequence(range(4), 100) for _ in range(4))
        for sequence in (decoding, prefilling, waiting):
            batch.add(sequence)
        await asyncio.sleep(1.1)
        batch.abort(waiting)
        batch.abort(decoding)
        await asyncio.sleep(2)
        batch.abort(prefilling)
        await asyncio.sleep(10)
        assert (len(batch.running), len(batch.waiting)) == (0, 0)
        assert batch.counters["requests_aborted"] == 3
        assert batch.counters["output_tokens"] < 4
        batch.add(last)
        await asyncio.sleep(2)
        assert batch.running == [last]
        running.cancel()

    on_made_up_clock(work())


def test_the_abort_of_a_sequence_that_has_ended_is_none() -> None:
    async def work() -> None:
        batch = Batch(LAW, 1, caching=False)
        running = asyncio.create_task(batch.run())
        sequence = Sequence(range(4), 1)
        batch.add(sequence)
        await served(sequence)
        batch.abort(sequence)
        assert batch.counters["requests_aborted"] == 0
        running.cancel()

    on_made_up_clock(work())
