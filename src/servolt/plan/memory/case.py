"""One question to an emulator: the deployment, what it runs and on what, with what was made out about each."""

from collections.abc import Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory.draft import draft_layers_of
from servolt.plan.memory.kv import token_bytes
from servolt.plan.memory.profiles import Profile
from servolt.plan.memory.settings import AUTO, Visible, argument, longest_context, visible_memory
from servolt.plan.memory.shape import Shape, shape_of
from servolt.plan.memory.sharding import Ranks, StageWeights, ranks_of
from servolt.plan.memory.terms import Known

__all__ = ["Case", "case_of"]

LONGEST = 2**20  # tokens, of a model that does not say


class Case(NamedTuple):
    deployment: Deployment
    model: Model
    accelerator: Accelerator
    profile: Profile
    known: Known
    shape: Shape
    ranks: Ranks
    visible: Visible

    @property
    def dtype(self) -> str | None:
        return self.deployment.dtype or self.model.dtype

    @property
    def kv_cache_dtype(self) -> str | None:
        """Checkpoints that are quantised together with their keys and values say so."""
        own = self.model.metadata.get("kv_cache_dtype")
        return self.deployment.kv_cache_dtype or (own if isinstance(own, str) else None)

    def state_dtype(self, option: str) -> str | None:
        """Of recurrent layers: as the engine's option says, else as the model does."""
        value = argument(self.deployment, option) or self.model.metadata.get("ssm.dtype")
        return value if isinstance(value, str) and value != "auto" else None

    @property
    def asked_context(self) -> int:
        """Tokens of one sequence; AUTO where the engine chooses."""
        return longest_context(self.deployment, self.model)

    @property
    def own_context(self) -> int:
        """The most that the model may take."""
        return self.model.max_position_embeddings or LONGEST

    @property
    def context(self) -> int:
        """Tokens of one sequence, for engines that do not choose."""
        asked = self.asked_context
        return self.own_context if asked == AUTO else asked

    @property
    def drafted(self) -> int:
        speculation = self.deployment.speculative_config
        return speculation.num_speculative_tokens if speculation is not None else 0

    @property
    def draft_layers(self) -> int:
        """Heads that guess tokens keep keys and values of one more layer of the model's own shape; a model its own."""
        speculation = self.deployment.speculative_config
        if speculation is not None and speculation.method == "draft_model":
            return draft_layers_of(self.model)
        return 1 if speculation is not None and speculation.method in ("eagle", "eagle3", "mtp") else 0

    @property
    def token_sizes(self) -> list[float]:
        """Of one layer of each kind, for one token on one rank."""
        return [
            token_bytes(kind, tp=self.ranks.attention_tp, kv_cache_dtype=self.kv_cache_dtype, dtype=self.dtype)
            for kind in self.shape.kinds
        ]

    def token_bytes(self, weights: Sequence[StageWeights]) -> int:
        """Of all layers of the stage that keeps the most, without windows."""
        sizes, order = self.token_sizes, self.shape.order
        return round(max(sum(sizes[kind] for kind in order[stage.start : stage.end]) for stage in weights))

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.profile.notes, *self.visible.notes, *self.shape.notes)


def case_of(deployment: Deployment, model: Model, accelerator: Accelerator, profile: Profile, known: Known) -> Case:
    return Case(
        deployment,
        model,
        accelerator,
        profile,
        known,
        shape_of(model),
        ranks_of(deployment),
        visible_memory(deployment, accelerator),
    )
