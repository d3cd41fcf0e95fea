"""A trained model of text as one object: `sample` writes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch

from core import storage
from core.storage.model_folder import DESCRIPTION, require_model_or_nothing
from core.text.model import TrainedText, load_model, save_model
from core.text.sampling import written
from core.training.log import read_records, write_records

STEPS, TEMPERATURE = 16, 0.9
"""How texts are drawn where nothing else is said: as the predefined text jobs do."""


class TextDiffusion:
    """A trained network with its tokenizer. `td.train` and `td.load` make one."""

    def __init__(self, trained: TrainedText) -> None:
        self.trained = trained
        self.log: list[dict[str, Any]] = []
        self.manner: dict[str, Any] = {}  # settings of the sampler by which the model was measured

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Self:
        """What `save`, or a step that trains, wrote into a folder or under a `gs://` prefix.

        Raises:
            UserError: a file is missing, damaged, or not of a text model.
        """
        loaded = cls(load_model(folder, device))
        loaded.log = read_records(folder)
        return loaded

    def save(self, folder: str | Path) -> None:
        """Writes weights, tokenizer, description and log into `folder`, all or nothing; a model there is replaced.

        Raises:
            UserError: the folder holds something else than a model.
        """
        trained = self.trained
        with storage.atomic_folder(require_model_or_nothing(folder), DESCRIPTION) as new:
            save_model(new, trained.network, trained.objective, trained.config, trained.tokenizer, self.description)
            write_records(self.log, {}, new)

    @property
    def description(self) -> dict[str, Any]:
        """What model.json says: objective, configuration, examples seen, hashes."""
        return self.trained.description

    @property
    def device(self) -> torch.device:
        return next(self.trained.network.parameters()).device

    def sample(
        self,
        count: int = 1,
        *,
        prompt: str = "",
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> list[str]:
        """Texts out of noise, each with its prompt: `count` of them.

        Args:
            count: how many.
            prompt: text to continue; `___` stands for what is to be filled in; empty: from nothing.
            steps: network evaluations for each block of tokens. Left out: 16, or as measured.
            guidance: weight of the prompt; 1: none. Left out: 1, or as measured.
            temperature: of the token probabilities; lower is safer. Left out: 0.9, or as measured.
            seed: the same seed gives the same texts; left out: another one each time.
            settings: more keys of the section `sample` of a text job, such as `length` in tokens.

        Raises:
            UserError: the model cannot do what is asked.
        """
        wishes = {"steps": steps, "guidance": guidance, "temperature": temperature, "seed": seed, **settings}
        section = self.settings(count, **wishes)
        return [str(row["text"]) for row in written(self.trained, None, section, prompt, self.device)]

    def settings(self, count: int, **wishes: Any) -> dict[str, Any]:
        """The section `sample` that `sample` writes by: what is asked, else as measured, else as the text jobs do."""
        section: dict[str, Any] = {"steps": STEPS, "temperature": TEMPERATURE, **self.manner}
        section |= {key: value for key, value in wishes.items() if value is not None}
        section.setdefault("seed", int(torch.randint(2**31, ())))
        return {**section, "count": count}
