"""config.json of our causal models: the spec of any model here, and what Transformers asks of every model.

Importing this needs Transformers, but neither torch nor the models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from transformers.configuration_utils import PreTrainedConfig

if TYPE_CHECKING:
    from hrm.models import ModelSpec
    from hrm.tasks import TaskShape

MODEL_TYPE = "hrm_orchestrator"


class HrmConfig(PreTrainedConfig):  # type: ignore[misc]  # Transformers is not type checked here
    """The configuration of `HrmForCausalLM`. Without arguments: a small causal HRM."""

    model_type: ClassVar[str] = MODEL_TYPE
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    spec: dict[str, Any] | None = None
    """The model's spec as YAML says it (`model: {kind: ...}`); null for a small causal HRM."""
    num_segments: int | None = None
    """Segments of a forward pass; null for as many as a row has at most in training (`halting.segments`)."""
    vocab_size: int = 258
    max_position_embeddings: int = 256
    """The longest row. A model of rotary positions can be loaded with more than it was trained with."""
    use_cache: bool = True
    tie_word_embeddings: bool | None = None
    """Only as the spec says; null takes it from there."""
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        from hrm.models.hrm import HRMSpec

        small = HRMSpec(hidden_size=64, num_heads=2, H_layers=1, L_layers=1, causal=True)
        self.spec = self.spec or small.model_dump(mode="json")
        for name in ("hidden_size", "num_attention_heads", "num_hidden_layers"):
            kwargs.pop(name, None)
        self.hidden_size = self.spec.get("hidden_size")
        self.num_attention_heads = self.spec.get("num_heads")
        model = self.model_spec()
        self.num_segments = self.num_segments or model.halting_rule().segments
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = bool(getattr(model, "tied_embeddings", False))
        self.num_hidden_layers = calls_of_blocks(model)
        super().__post_init__(**kwargs)

    def model_spec(self) -> ModelSpec:
        """The spec. Raises SpecError where it is none, and for a model that sees the future."""
        from hrm.errors import Problem, SpecError
        from hrm.loading import parse_model

        spec = parse_model(self.spec, "config.json: spec")
        if spec.sees_the_future:
            rule = f"a {spec.kind} that sees the future is no causal language model"
            raise SpecError(Problem("config.json: spec", rule, spec.way_to_causality))
        return spec

    def task_shape(self) -> TaskShape:
        """What the model is built for."""
        from hrm.tasks import TaskShape

        return TaskShape(self.vocab_size, self.max_position_embeddings, next_token=True)


def calls_of_blocks(spec: ModelSpec) -> int:
    """How many blocks a segment runs one after another, repeated ones counted each time; 1 where nothing tells."""
    from hrm.models.recursion import RecursiveSpec

    if isinstance(spec, RecursiveSpec):
        return sum(spec.depth_of(call) for call in spec.calls(1.0))
    return int(getattr(spec, "num_layers", 1))
