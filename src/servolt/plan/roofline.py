"""How long a step takes on any accelerator: bytes and FLOPs of the model over what the hardware gives, and fixed costs.

The formulas hold for numbers and for arrays alike (see work.py), so they use operators only.
"""

from collections.abc import Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.rates import Rates, Table, rates_of, speed_table, traits_of
from servolt.plan.speed import Term
from servolt.plan.work import Four, Work, work_of

__all__ = ["DEFAULT_BATCH_TOKENS", "Drafting", "RooflineLaw", "least", "roofline_of"]

# Tokens of one step where a deployment doesn't say: vllm 0.33.0 on cards of 70 GiB and more.
DEFAULT_BATCH_TOKENS = 8192
# A draft model's size as a share of its target's: 1B for 8B to 70B, as the engines' own examples pair them. EAGLE and
# MTP draft with one layer.
DRAFT_MODEL_COST = 0.05


class Drafting(NamedTuple):
    """Speculation: tokens that are drafted for each step, those of them that are accepted on average, and what drafting
    one token costs, as a share of the model's own bytes."""

    drafted: int
    accepted: float
    cost: float


class RooflineLaw:
    """The time of one step of one replica. Sequences and tokens are of the whole replica.

    t = max(dense bytes / bandwidth, FLOP / rate) + max(touched experts / bandwidth, FLOP / rate)
        + attention over the context + messages + layers * launch + sequences * sequence_s
    """

    def __init__(
        self,
        work: Work,
        constants: Rates,
        *,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        drafting: Drafting | None = None,
    ) -> None:
        self.work, self.constants = work, constants
        self._batch_tokens, self._drafting = batch_tokens, drafting
        self._layers_s = _layers_s(work, constants)

    def decode_s(self, sequences: float, context: float) -> float:
        """One token for each of the sequences, at this mean context."""
        return sum(self._seconds(self._sides(sequences, context))) / self._emitted

    def decode_terms(self, sequences: float, context: float) -> tuple[Term, ...]:
        seconds = self._seconds(self._sides(sequences, context))
        return tuple(
            Term(name, one / self._emitted, formula) for (name, formula), one in zip(DECODE_TERMS, seconds, strict=True)
        )

    def computes(self, name: str, sequences: float, context: float) -> bool:
        """Whether arithmetic, not memory, is what a term waits for."""
        places = {term: place for place, (term, _) in enumerate(DECODE_TERMS)}
        read_s, flop_s = self._sides(sequences, context)[places[name]]
        return flop_s > read_s

    def sides(self, sequences: float, context: float) -> list[tuple[float, float]]:
        """Of each of DECODE_TERMS but drafting, seconds of memory (or of what has one side) and of arithmetic, for a
        step of all tokens that are checked."""
        return self._sides(sequences, context)

    def busy_s(self, sequences: float, context: float) -> tuple[float, float]:
        """Of a decode step, seconds in which memory is read, and in which arithmetic is done, at rates as reached."""
        sides = self._sides(sequences, context)[:3]
        return sum(read_s for read_s, _ in sides), sum(flop_s for _, flop_s in sides)

    @property
    def _emitted(self) -> float:
        return 1.0 if self._drafting is None else 1.0 + self._drafting.accepted

    def _seconds(self, sides: Sequence[tuple[float, float]]) -> list[float]:
        seconds = [_greater(read_s, flop_s, self.constants.overlap) for read_s, flop_s in sides]
        drafting = self._drafting
        drafts = 0.0 if drafting is None else drafting.drafted * drafting.cost * (seconds[0] + seconds[1])
        return [*seconds, drafts]

    def _sides(self, sequences: float, context: float) -> list[tuple[float, float]]:
        """Of each term, seconds of memory (or of what has only one side) and of arithmetic."""
        work, rates = self.work, self.constants
        checked = 1 if self._drafting is None else 1 + self._drafting.drafted
        batches = least(work.stages, sequences)
        own, all_tokens = sequences / work.groups / batches, sequences / batches * checked
        bandwidth, tokens = work.bandwidth_bytes_per_s, own * checked
        head_s = work.head_bytes / (rates.head_bandwidth * bandwidth)
        touched_share = busiest(touched(work.expert_share, all_tokens, rates.routing), work.expert_spread)
        return [
            (
                _over(work.dense_bytes, rates.dense_bandwidth) / bandwidth + head_s,
                tokens * (_over(work.dense_flop_s, rates.decode_flops) + work.head_flop_s / rates.decode_flops[0]),
            ),
            (
                touched_share * _over(work.expert_bytes, rates.expert_bandwidth) / bandwidth,
                all_tokens * _over(work.expert_flop_s, rates.expert_flops),
            ),
            self._attention_sides(own, context, checked),
            (tokens * work.link_s / rates.link, 0.0),
            (self._layers_s, 0.0),
            (own * rates.sequence_s, 0.0),
            (work.host_s, 0.0),
        ]

    def _attention_sides(self, sequences: float, context: float, checked: float) -> tuple[float, float]:
        """Each sequence reads what it keeps once, whatever the number of tokens that look at it."""
        work, rates = self.work, self.constants
        latent = work.latent_layers / work.layers
        share = rates.cache_bandwidth * (1.0 - latent + latent * rates.latent_bandwidth)
        size = sum(span.bytes * least(context, span.window) for span in work.spans) + work.state_bytes
        flop_s = sum(span.decode_flop_s * least(context, span.window) for span in work.spans)
        read_s = sequences * size / (work.bandwidth_bytes_per_s * share)
        return read_s, sequences * checked * flop_s / rates.decode_attention

    def step_s(
        self, *, sequences: float, context: float, prompt_tokens: float, prompts: float, prompt_context: float
    ) -> float:
        """A step that decodes for `sequences` and takes in `prompt_tokens`, with which `prompts` prompts end."""
        if not prompt_tokens:
            return self.decode_s(sequences, context)
        sides = self._attention_sides(sequences / self.work.groups, context, 1)
        beside = _greater(*sides, self.constants.overlap)
        tail = (sequences + prompts) / self.work.groups * self.constants.sequence_s
        once = self._pass_s(prompt_tokens + sequences, prompt_tokens, prompt_context, self.work.groups)
        return once + beside + tail

    def prefill_s(self, tokens: float) -> float:
        """A prompt alone, up to its first token. A token attends to half the prompt on average."""
        return self._pass_s(tokens, tokens, tokens / 2, groups=1.0) + self.constants.sequence_s

    def _pass_s(self, tokens: float, prompt_tokens: float, prompt_context: float, groups: float) -> float:
        """Chunks go through the stages one behind the other. `groups` are those that bring as many tokens each."""
        work, rates = self.work, self.constants
        passes = self._passes(tokens)
        behind = (passes + work.stages - 1.0) / (passes * work.stages)
        bandwidth = work.bandwidth_bytes_per_s
        read_s = (
            _over(work.dense_bytes, rates.dense_bandwidth)
            + touched(work.expert_share, tokens, rates.routing) * _over(work.expert_bytes, rates.expert_bandwidth)
        ) / bandwidth
        compute_s = self._compute_s(tokens, groups)
        once = _greater(passes * read_s, compute_s, rates.overlap) + passes * self._prompt_layers_s()
        attended = prompt_tokens * self._attended_s(prompt_context)
        return (once + attended + self._messages_s(tokens)) * behind + rates.step_s + work.host_s

    def prompt_terms(self, tokens: float) -> dict[str, float]:
        """The addends of `prefill_s`."""
        work, rates = self.work, self.constants
        passes = self._passes(tokens)
        behind = (passes + work.stages - 1.0) / (passes * work.stages)
        touched_share = touched(work.expert_share, tokens, rates.routing)
        read = _over(work.dense_bytes, rates.dense_bandwidth)
        read += touched_share * _over(work.expert_bytes, rates.expert_bandwidth)
        read_s, compute_s = passes * read / work.bandwidth_bytes_per_s, self._compute_s(tokens, 1.0)
        return {
            f"weights in {passes:.4g} passes, read in {read_s:.5g} s and arithmetic in {compute_s:.5g} s": behind
            * _greater(read_s, compute_s, rates.overlap),
            "layers": behind * passes * self._prompt_layers_s(),
            "attention": behind * tokens * self._attended_s(tokens / 2),
            "messages": behind * self._messages_s(tokens),
            "step and text": rates.step_s + work.host_s + rates.sequence_s,
        }

    def prompt_s(self, tokens: float, context: float | None = None) -> float:
        """What a prompt, or a part of one at a mean context, adds to steps that run anyway: its arithmetic, without the
        weights' bytes and the launches."""
        seen = tokens / 2 if context is None else context
        added = tokens * self._attended_s(seen) + self._messages_s(tokens)
        added += self._compute_s(tokens, self.work.groups)
        return added / self.work.stages

    def _compute_s(self, tokens: float, groups: float) -> float:
        """Where prompts come in several groups at the same time, each expert gets those of all.

        Products with an expert are done in tiles of rows: the last one of each expert is in part empty.
        """
        work, rates = self.work, self.constants
        rows = tokens + rates.expert_tile / (work.expert_share + (work.expert_share == 0.0))
        experts = groups * rows * _over(work.expert_flop_s, rates.prompt_expert_flops)
        return tokens * _over(work.dense_flop_s, rates.prompt_flops) + experts

    def _attended_s(self, context: float) -> float:
        return (
            sum(s.prompt_flop_s * least(context, s.window) for s in self.work.spans) / self.constants.prompt_attention
        )

    def _passes(self, tokens: float) -> float:
        return 1.0 + tokens / self._batch_tokens - least(1.0, tokens / self._batch_tokens)

    def _messages_s(self, tokens: float) -> float:
        """Of a prompt's tokens: each sum waits for every hop of its ring, twice, and for the bytes."""
        work, rates = self.work, self.constants
        return self._passes(tokens) * work.hops * rates.hop_s + tokens * work.link_s / rates.prompt_link

    def _prompt_layers_s(self) -> float:
        return self._layers_s + self.work.layers * self.constants.prompt_layer_s


DECODE_TERMS = (
    ("weights", "max(dense bytes / bandwidth, FLOP / rate)"),
    ("experts", "max(bytes of the experts that the tokens touch / bandwidth, FLOP / rate)"),
    ("kv_cache", "max(bytes of keys, values and states / bandwidth, FLOP of attention / rate)"),
    ("communication", "bytes between devices / link"),
    ("layers", "layers x launch of their kernels"),
    ("sequences", "scheduling, sampling and text of each sequence"),
    ("host", "bytes of the weights on the host / its bandwidth"),
    ("drafting", "tokens that are drafted x cost of one"),
)


def roofline_of(
    deployment: Deployment, model: Model, accelerator: Accelerator, *, table: Table | None = None
) -> RooflineLaw:
    """The law of one replica of a deployment, with the constants of its engine on this accelerator."""
    work = work_of(deployment, model, accelerator)
    traits = traits_of(deployment, accelerator, devices=work.devices)
    rates = rates_of(speed_table() if table is None else table, traits)
    batch_tokens = deployment.max_num_batched_tokens or DEFAULT_BATCH_TOKENS
    return RooflineLaw(work, rates, batch_tokens=batch_tokens, drafting=_drafting(deployment, model))


def _drafting(deployment: Deployment, model: Model) -> Drafting | None:
    """None without speculation, and where its acceptance was not measured: then nothing is gained or lost by it."""
    speculation = deployment.speculative_config
    if speculation is None or speculation.acceptance is None:
        return None
    layers = max(model.num_layers, 1)
    costs = {"ngram": 0.0, "medusa": 0.0, "draft_model": DRAFT_MODEL_COST}
    cost = costs.get(speculation.method, 1.0 / layers)
    accepted = min(speculation.acceptance, float(speculation.num_speculative_tokens))
    return Drafting(speculation.num_speculative_tokens, accepted, cost)


def least(one: float, other: float) -> float:
    """The smaller one, element by element for arrays."""
    return (one + other - abs(one - other)) / 2.0


def touched(share: float, tokens: float, routing: float) -> float:
    """Of the routed experts, the distinct ones that so many tokens are expected to need.

    Tokens of one step are alike in part: each further one chooses afresh with the weight `routing`.

    >>> touched(0.25, 1, 0.8)
    0.25
    """
    missed: float = (1.0 - share) ** (1.0 - routing + tokens * routing)
    return 1.0 - missed


def busiest(share: float, spread: float) -> float:
    """Where ranks hold whole experts, the share that the busiest one reads: a step waits for it.

    >>> round(busiest(0.4, 0.0), 6)
    0.4
    """
    more: float = spread * (share * (1.0 - share)) ** 0.5
    return least(1.0, share + more)


def _greater(one: float, other: float, power: float) -> float:
    """Memory and arithmetic overlap: the longer one rules, and near the crossing both slow each other."""
    mean: float = (one**power + other**power) ** (1.0 / power)
    return mean


def _over(sizes: Four, rates: Four) -> float:
    return sizes[0] / rates[0] + sizes[1] / rates[1] + sizes[2] / rates[2] + sizes[3] / rates[3]


def _layers_s(work: Work, rates: Rates) -> float:
    return (
        rates.step_s
        + work.layers * rates.layer_s
        + work.expert_layers * rates.expert_layer_s
        + work.latent_layers * rates.latent_layer_s
        + work.indexed_layers * rates.indexed_layer_s
        + work.recurrent_layers * rates.recurrent_layer_s
        + work.expert_choices * rates.expert_choice_s
        + work.shared_layers * rates.shared_layer_s
        + work.scaled_layers * rates.scaled_layer_s
        + work.exchanged_layers * rates.exchange_layer_s
    )
