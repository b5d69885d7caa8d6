"""The replay engine's law, which it states itself, in the shape of the law of a real engine."""

from servolt.engines.replay_law import Law as ReplayLaw
from servolt.plan.speed import Constants, Term

__all__ = ["StatedLaw", "stated_constants"]

# Beside its law the fake pays for HTTP and for the clock of asyncio: about this much of a request.
REQUEST_S = 2e-3
# Sleeps end late, by up to 0.2 ms a step.
SPREAD = 0.05


def stated_constants() -> Constants:
    """What surrounds the law. It names no accelerator, since the law is the same on all."""
    return Constants(
        engine="replay",
        step_s=0.0,
        layer_s=0.0,
        sequence_s=0.0,
        layer_token_s=0.0,
        request_s=REQUEST_S,
        weights={},
        spread=SPREAD,
        source="the law that the replay engine states",
    )


class StatedLaw:
    """A prefill runs alone; a step that does both takes the time of both."""

    def __init__(self, law: ReplayLaw, constants: Constants) -> None:
        self.constants = constants
        self._law = law

    def decode_s(self, sequences: float, context: float) -> float:
        return sum(term.seconds for term in self.decode_terms(sequences, context))

    def decode_terms(self, sequences: float, context: float) -> tuple[Term, ...]:
        return (
            Term("step", self._law.step_s, "step_s of the stated law"),
            Term("sequences", self._law.step_s_per_sequence * sequences, "step_s_per_sequence of the stated law"),
        )

    def prefill_s(self, tokens: int) -> float:
        return self._law.prefill(tokens)

    def step_s(
        self, *, sequences: int, context: float, prompt_tokens: int, prompts: int, prompt_context: float
    ) -> float:
        decode = self.decode_s(sequences, context) if sequences else 0.0
        return decode + self._law.prefill(prompt_tokens)
