"""Any causal model of ours as a `PreTrainedModel`: generation, saving, loading, resizing as for Transformers' own.

A forward pass is `num_segments` segments; the loss is that of the last, the only one with gradient. Of caches it takes
`DynamicCache`, whose layers are the slots of `hrm.nn.cache`; attention masks are [B, T], padding is around a text.
A batch and a cache give to rounding what the model here gives row by row, whole.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from hrm.huggingface.configuration import HrmConfig
from hrm.huggingface.values import mark_drawn, own_initialisation, steady_tables
from hrm.models import Model, Rows
from hrm.nn.attention import AttentionKernel
from hrm.nn.cache import CachePass
from hrm.nn.draws import Draws
from hrm.nn.layers import Linear

_OLD = "cache_position"
"""What Transformers before 5.10 hands over and needs no longer."""
_KERNELS: dict[str | None, AttentionKernel] = {"eager": "explicit", "sdpa": "sdpa", None: "sdpa"}


class Vocabulary(nn.Embedding):
    """The token embeddings of a model of ours, as a module that Transformers knows how to resize.

    Vectors in the place of tokens are given back: so `inputs_embeds` come in.
    """

    @classmethod
    def around(cls, table: nn.Parameter) -> Vocabulary:
        """The module of these very embeddings."""
        made = cls(table.shape[0], table.shape[1], device="meta")
        made.weight = table
        return made

    @property
    def embedding_weight(self) -> Tensor:
        """Their name here."""
        return self.weight

    def forward(self, tokens: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        found = tokens if tokens.is_floating_point() else super().forward(tokens)
        return found if dtype is None else found.to(dtype)


class HrmForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]  # Transformers is not type checked here
    """The class that `AutoModelForCausalLM` finds for a config.json of ours."""

    config_class = HrmConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    gradient_checkpointing = False
    _supports_sdpa = True
    _no_split_modules: ClassVar[list[str]] = ["Block", "GatedBlock"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _tied_weights_keys: ClassVar[dict[str, str]] = {"network.lm_head.weight": "network.embed_tokens.weight"}

    def __init__(self, config: HrmConfig) -> None:
        super().__init__(config)
        self.network = _resizable(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_segments: int | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast | tuple[Tensor, ...]:
        """See Transformers' causal models.

        labels [B, S]: the tokens themselves; Transformers shifts them by one (rows of the datasets here are shifted
        already). num_segments: instead of the configuration's. output_hidden_states: what the head could read after
        each segment. Raises ValueError for what is not offered.
        """
        inputs = _one_of(input_ids, inputs_embeds)
        _refuse(others, past_key_values, attention_mask)
        checkpointing = self.gradient_checkpointing and self.training
        wanted = (self.config.use_cache if use_cache is None else use_cache) and not checkpointing
        if wanted and past_key_values is None:
            past_key_values = DynamicCache()
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        rows = self._rows(inputs, attention_mask, position_ids, past)
        cache = None if past_key_values is None or checkpointing else CachePass(_Slots(past_key_values, past), past)
        answers = self._segments(rows, cache, num_segments or self.config.num_segments)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.network.head(answers[-1][:, kept])
        loss = None
        if labels is not None:
            counted = {} if num_items_in_batch is None else {"num_items_in_batch": num_items_in_batch}
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **counted)
        every = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values if wanted else None,
            hidden_states=tuple(answers) if every else None,
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], mode: Any, batch_size: int, max_cache_length: int
    ) -> Any:
        """See Transformers; here it is known how many positions will be read, and nothing has been computed yet.

        Raises ValueError where the model has fewer.
        """
        mask = model_kwargs.get("attention_mask")
        needed = max_cache_length - (0 if mask is None else int((mask == 0).sum(1).min()))
        if needed > self._longest:
            raise ValueError(
                f"prompt and new tokens must need at most {self._longest} positions (the last token needs none), got "
                f"{needed}; lower max_new_tokens or max_length by {needed - self._longest}, or load the model with a "
                "larger max_position_embeddings (where its positions are rotary)"
            )
        return super()._prepare_cache_for_generation(
            generation_config, model_kwargs, mode, batch_size, max_cache_length
        )

    def _segments(self, rows: Rows, cache: CachePass | None, count: int) -> list[Tensor]:
        """The answer [B, S, D] after each segment."""
        self._settle()
        inputs, with_gradient = rows["inputs"], torch.is_grad_enabled()
        # One slot for all rows: a random start depends neither on a row's place in the batch nor on its beam.
        seed = int(torch.randint(2**62, ())) if self.training else 0
        slots = torch.arange(len(inputs)) if self.training else torch.zeros(len(inputs), dtype=torch.int64)
        draws = Draws(seed, 0, slots.to(inputs.device), training=self.training)
        state = self.network.state_at(len(inputs), draws, rows["positions"])
        answers = []
        for number in range(1, count + 1):
            with torch.set_grad_enabled(with_gradient and number == count):
                output = self.network.segment(state, rows, draws, cache)
            state = output.state
            answers.append(output.answer)
        return answers

    def _rows(self, inputs: Tensor, mask: Tensor | None, positions: Tensor | None, past: int) -> Rows:
        count, length = inputs.shape[:2]
        if mask is not None and mask.shape[1] != past + length:
            raise ValueError(f"attention_mask must be of all {past + length} positions, got {mask.shape[1]}")
        padded = mask is not None and not bool(mask.all())
        if positions is None and mask is not None and padded:
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, past:]
        elif positions is None:
            positions = torch.arange(past, past + length, device=inputs.device)
        if past + length > self.config.max_position_embeddings and int(positions.max()) >= self._longest:
            raise ValueError(
                f"a row must be of at most {self._longest} positions, got {int(positions.max()) + 1}; shorten it"
                ", or load the model with a larger max_position_embeddings (where its positions are rotary)"
            )
        rows = {"inputs": inputs, "positions": positions.expand(count, -1) if positions.dim() > 1 else positions}
        return rows | ({"documents": mask.long()} if mask is not None and padded else {})

    @property
    def _longest(self) -> int:
        return int(self.config.max_position_embeddings)

    def _settle(self) -> None:
        """Compute in the type of the weights, with the attention that the configuration names.

        Checkpointed blocks are never reentrant, whatever is asked: the first call that carries gradient has no input
        with one, and its parameters would get none.
        """
        kernel, dtype = _KERNELS[self.config._attn_implementation], self.network.embed_tokens.embedding_weight.dtype
        wanted = dtype, kernel, self.gradient_checkpointing and self.training
        if getattr(self, "_settled", None) != wanted:
            self.network.configure(dtype, kernel, recomputes=wanted[2])
            self._settled = wanted
        steady_tables(self.network, self.config)

    def get_input_embeddings(self) -> nn.Module:
        return self.network.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        if not isinstance(value, Vocabulary):
            value = Vocabulary.around(value.weight)  # type: ignore[arg-type]
        self.network.embed_tokens = value  # type: ignore[assignment]

    def get_output_embeddings(self) -> nn.Module | None:
        return self.network.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.network.lm_head = new_embeddings  # type: ignore[assignment]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        own_initialisation(module, self.network, self.config)


class _Slots:
    """A `DynamicCache` as the slots of a pass, of which it gets as many as are asked for."""

    def __init__(self, cache: DynamicCache, past: int) -> None:
        self._cache, self._past = cache, past

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """See `hrm.nn.cache.Cache`. Raises ValueError for a slot that earlier passes left out."""
        layers = self._cache.layers
        layers.extend(DynamicLayer() for _ in range(layer_idx + 1 - len(layers)))
        if layers[layer_idx].get_seq_length() != self._past:
            raise ValueError("a cache must be used with one number of segments; begin with a new one")
        keys, values = self._cache.update(key_states, value_states, layer_idx)
        return keys, values


def _resizable(config: HrmConfig) -> Model:
    """The model of the spec, whose embeddings and head are of torch's classes and always two (Transformers ties)."""
    spec = config.model_spec()
    if getattr(spec, "tied_embeddings", False):
        spec = spec.model_copy(update={"tied_embeddings": False})
    network = spec.build(config.task_shape())
    table, head = network.embed_tokens.embedding_weight, network.lm_head
    if not isinstance(head, Linear):
        raise ValueError(f"a {spec.kind} has no head that could be resized")
    linear = nn.Linear(head.weight.shape[1], head.weight.shape[0], bias=False, device="meta")
    linear.weight = head.weight
    network.embed_tokens, network.lm_head = Vocabulary.around(table), linear  # type: ignore[assignment]
    mark_drawn(network)
    return network


def _one_of(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    given = [value for value in (input_ids, inputs_embeds) if value is not None]
    if len(given) != 1:
        raise ValueError(f"give either input_ids or inputs_embeds, got {len(given)} of them")
    return given[0]


def _refuse(others: dict[str, Any], cache: Any, mask: Tensor | None) -> None:
    unknown = sorted(n for n, value in others.items() if not (value is None or value is False or n == _OLD))
    if unknown:
        raise ValueError(f"these models have no {', '.join(unknown)}; leave it out")
    if cache is not None and not (
        isinstance(cache, DynamicCache) and all(type(x) is DynamicLayer for x in cache.layers)
    ):
        raise ValueError(
            f"the cache must be a DynamicCache, got {type(cache).__name__}; leave cache_implementation out"
        )
    if mask is not None and mask.dim() != 2:
        raise ValueError(f"attention_mask must be [rows, positions], got {mask.dim()} dimensions")
