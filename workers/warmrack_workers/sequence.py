"""One sequence being generated: its tokens so far, its cache and how the next token is chosen.

Each step is what transformers' own `generate` does for one sequence, through the same methods of
the model, so that greedy tokens are equal to `generate(do_sample=False)` one by one.
"""

import inspect
import secrets
from collections.abc import Iterator
from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.generation.configuration_utils import GenerationMode

from warmrack_workers.batcher import GenerationRequest

_UNSAMPLED = {"min_p": None, "top_h": None, "typical_p": 1.0, "top_k": 0}
_UNSAMPLED |= {"epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
"""A request says temperature and top_p itself; the repository's defaults for how to sample would
silently change them. Its penalties and token lists stay in force, sampled or greedy."""


class Sequence:
    """Must be used inside `torch.inference_mode()`, from one thread."""

    def __init__(self, model: Any, request: GenerationRequest) -> None:
        self._model = model
        self._request = request
        self._ids = torch.tensor([request.prompt], dtype=torch.long, device=model.device)
        self._config = _configure(model, request, self._ids)
        self._kwargs = self._first_kwargs()
        self._choose = model._get_logits_processor(
            generation_config=self._config,
            input_ids_seq_length=len(request.prompt),
            encoder_input_ids=self._ids,
            logits_processor=LogitsProcessorList(),
            device=model.device,
            model_kwargs=self._kwargs,
        )
        self._random = torch.Generator(device=model.device)
        self._random.manual_seed(secrets.randbits(63) if request.seed is None else request.seed)
        eos = self._config.eos_token_id
        self._eos = frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])
        self.ended = False
        """The model itself ended the text."""

    def tokens(self) -> Iterator[tuple[int, bool]]:
        """(token, whether it is the last one), one forward pass each."""
        for count in range(1, self._request.max_tokens + 1):
            token = self._next_token(first=count == 1)
            self.ended = token in self._eos
            last = self.ended or count == self._request.max_tokens
            yield token, last
            if last:
                return

    @property
    def cache_bytes(self) -> int:
        cache = self._kwargs.get("past_key_values")
        return sum(
            value.nbytes
            for layer in getattr(cache, "layers", ())
            for value in tuple(vars(layer).values())
            if isinstance(value, torch.Tensor)
        )

    def _next_token(self, *, first: bool) -> int:
        inputs = self._model.prepare_inputs_for_generation(
            self._ids,
            next_sequence_length=None if first or not self._kwargs["use_cache"] else 1,
            is_first_iteration=first,
            **self._kwargs,
        )
        outputs = self._model(**inputs, return_dict=True)
        self._kwargs = self._model._update_model_kwargs_for_generation(
            outputs, self._kwargs, is_encoder_decoder=False
        )
        scores = self._choose(self._ids, outputs.logits[:, -1].to(copy=True, dtype=torch.float32))
        if self._request.temperature:
            chosen = torch.multinomial(scores.softmax(dim=-1), 1, generator=self._random)
        else:
            chosen = scores.argmax(dim=-1, keepdim=True)
        self._ids = torch.cat([self._ids, chosen], dim=-1)
        return int(chosen)

    def _first_kwargs(self) -> dict[str, Any]:
        """The same first arguments as `generate` gives: a mask of ones is left out."""
        length = self._ids.shape[1]
        kwargs: dict[str, Any] = {"use_cache": self._config.use_cache, "attention_mask": None}
        if "position_ids" in inspect.signature(self._model.forward).parameters:
            kwargs["position_ids"] = torch.arange(length, device=self._ids.device)[None]
        if self._model._supports_logits_to_keep():
            kwargs["logits_to_keep"] = 1
        self._model._prepare_cache_for_generation(
            self._config,
            kwargs,
            GenerationMode.GREEDY_SEARCH,
            1,
            length + self._request.max_tokens - 1,
        )
        return kwargs


def _configure(model: Any, request: GenerationRequest, ids: torch.Tensor) -> Any:
    """The repository's generation config, with what the request says itself."""
    stated: dict[str, Any] = {
        "max_new_tokens": request.max_tokens,
        "max_length": None,
        "num_beams": 1,
        "do_sample": request.temperature > 0,
    }
    if request.temperature > 0:
        stated |= {"temperature": request.temperature, "top_p": request.top_p, **_UNSAMPLED}
    config, _ = model._prepare_generation_config(None, **stated)
    model._prepare_special_tokens(config, True, device=ids.device, batch_size=1)
    return model._prepare_generated_length(
        generation_config=config,
        has_default_max_length=True,
        has_default_min_length=model.generation_config.min_length is None,
        model_input_name="input_ids",
        inputs_tensor=ids,
        input_ids_length=ids.shape[1],
    )
