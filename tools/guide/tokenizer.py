"""Trains the byte-level BPE tokenizer on the corpus."""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["END_OF_TEXT", "IM_END", "IM_START", "SPECIALS", "train_tokenizer"]

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>")
END_OF_TEXT, IM_START, IM_END = 0, 1, 2


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE as in GPT-2, which llama.cpp knows as `tokenizer.ggml.pre` = "gpt-2"."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(text, special=True) for text in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
