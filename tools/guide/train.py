"""Trains guide: AdamW over a fixed number of steps, the same weights for the same seed on the same machine.

Run it as `python -m tools.guide.train --out FOLDER`; the folder then holds tokenizer.json,
shape.json and weights.safetensors (names as in Hugging Face's Llama, F32).
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn import functional

from tools.guide.corpus import SEED, Corpus, Turn
from tools.guide.model import SHAPE, Llama
from tools.guide.tokenizer import END_OF_TEXT, train_tokenizer

STEPS = 1300
PEAK_RATE = 3e-3
WARM_UP_STEPS = 50
WEIGHT_DECAY = 0.05
CLIP = 1.0
PROMPT_WEIGHT = 0.1  # what is asked is learned a little, so that text outside a conversation is not noise
BATCHES = (*((32, 128),) * 5, (8, 512), *((32, 128),) * 5, (4, 1024))  # rows x tokens; long ones cost 4 times the time
TOKENIZER_EXCHANGES = 40_000
CHECKPOINT_EVERY = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    corpus = Corpus.load(SEED)
    tokenizer = train_tokenizer(corpus.texts(TOKENIZER_EXCHANGES), SHAPE.vocabulary)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    (arguments.out / "shape.json").write_text(json.dumps(asdict(SHAPE)), encoding="utf-8")
    train(corpus, tokenizer, arguments.steps, arguments.out)


def train(corpus: Corpus, tokenizer: Tokenizer, steps: int, out: Path) -> None:
    torch.manual_seed(SEED)
    model = Llama(SHAPE)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    kept = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)
    rows = Rows(corpus, tokenizer)
    started, seen, shown = time.monotonic(), 0, 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * rate_share(step, steps)
        tokens, weights = rows.batch(*BATCHES[step % len(BATCHES)])
        loss, answer_loss = losses(model, tokens, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        seen += tokens.numel()
        shown = answer_loss if step == 0 else 0.95 * shown + 0.05 * answer_loss
        if step % 20 == 19:
            elapsed_s = time.monotonic() - started
            rate = seen / elapsed_s
            say(f"step {step + 1}/{steps}  answer loss {shown:.3f}  {rate:,.0f} tokens/s  {elapsed_s:.0f} s")
        if step % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
            save(model, out)
    save(model, out)


def losses(model: Llama, tokens: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The weighted loss to descend, and the plain one over the answers alone, to show."""
    targets, weights = tokens[:, 1:], weights[:, 1:]
    learned = weights > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.logits(model(tokens[:, :-1])[learned])
    each = functional.cross_entropy(logits.float(), targets[learned], reduction="none")
    weight = weights[learned]
    answers = each.detach()[weight == 1.0]
    return (each * weight).sum() / weight.sum(), answers.mean().item()


def rate_share(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    done = (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


class Rows:
    """Conversations as rows of tokens: as many exchanges as fit, the rest of the row is padding that is not learned."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._rng = random.Random(corpus.seed + 1)
        self._exchanges = self._encoded()
        self._next = next(self._exchanges)

    def batch(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and weights, each (rows, length + 1)."""
        filled = [self._row(length + 1) for _ in range(rows)]
        tokens = torch.tensor([row for row, _ in filled])
        weights = torch.tensor([weight for _, weight in filled])
        return tokens, weights

    def _row(self, length: int) -> tuple[list[int], list[float]]:
        tokens, weights = self._joined(self._corpus.opening(self._rng))
        while not tokens or len(tokens) + len(self._next[0]) <= length:
            tokens += self._next[0]
            weights += self._next[1]
            self._next = next(self._exchanges)
        padding = max(0, length - len(tokens))
        return (tokens + [END_OF_TEXT] * padding)[:length], (weights + [0.0] * padding)[:length]

    def _encoded(self) -> Iterator[tuple[list[int], list[float]]]:
        for exchange in self._corpus.exchanges():
            yield self._joined(exchange)

    def _joined(self, turns: tuple[Turn, ...]) -> tuple[list[int], list[float]]:
        pairs = [self._turn(turn) for turn in turns]
        return [token for pair in pairs for token in pair[0]], [weight for pair in pairs for weight in pair[1]]

    def _turn(self, turn: Turn) -> tuple[list[int], list[float]]:
        """The tokens of a turn; those of an answer, up to and with its end, weigh 1."""
        head = self._tokenizer.encode(f"<|im_start|>{turn.role}\n").ids
        body = self._tokenizer.encode(f"{turn.content}<|im_end|>").ids
        tail = self._tokenizer.encode("\n").ids
        weight = 1.0 if turn.learned else PROMPT_WEIGHT
        return head + body + tail, [0.0] * len(head) + [weight] * len(body) + [0.0] * len(tail)


def save(model: Llama, out: Path) -> None:
    """Written beside and then renamed, so that a stopped run leaves the last whole one."""
    unfinished = out / "weights.safetensors.part"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, unfinished)
    unfinished.replace(out / "weights.safetensors")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
