"""On what terms an older model is measured on a newer model's text: by its own tokens, per character."""

from __future__ import annotations

from pathlib import Path

from core.errors import IncomparableError
from core.requests import Section
from core.storage.model_folder import read_description
from core.text import data
from core.text import tokenizer as tokenizers
from core.text.long_text import BLOCK, between_words
from core.text.model import TOKENIZER


def equal_terms(champion: Path, challenger: Path, dataset: Path, sample: Section) -> Section:
    """The section `sample` of the challenger's job, as it is: a number per character needs no common tokenizer.

    Raises:
        IncomparableError: the champion's tokenizer cannot write the held-out text, or that is too short for it.
        UserError: a model's description or the data set is damaged.
    """
    theirs, ours = (read_description(folder, "text") for folder in (champion, challenger))
    if theirs.get("tokenizer_sha256") == ours.get("tokenizer_sha256"):
        return sample
    tokenizer = tokenizers.load(champion / TOKENIZER, str(theirs.get("tokenizer_sha256")))
    held_out = data.load(dataset).long("test")
    if isinstance(tokenizer, tokenizers.CharacterTokenizer):
        unknown = sorted(set().union(*between_words(held_out, BLOCK)) - set(tokenizer.characters))
        if unknown:
            shown = ", ".join(map(repr, unknown[:5]))
            raise IncomparableError(f"the held-out text has characters that the champion does not know: {shown}")
    tokens, context = sum(map(len, tokenizers.encode_blocks(tokenizer, held_out))), int(theirs["model"]["context"])
    if tokens < context:
        raise IncomparableError(f"the held-out text is {tokens} tokens, less than the champion's context of {context}")
    return sample
