"""When a row has had enough segments: the rules of HRM (q_with_target), of TRM and URM (q), of causal text, and none.

`none` and `q_loss` give every row a fixed number of segments. Follows sapientinc/HRM `hrm_act_v1.py` and TRM's
`trm.py`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from hrm.nn.draws import Draws
from hrm.spec import Spec


class HaltingSpec(Spec):
    """How many segments a row gets, and whether a learned Q may end it sooner during training."""

    rule: Literal["none", "q", "q_with_target", "q_loss"] = "none"
    """`q`: halt where q_halt > 0. `q_with_target`: halt where q_halt > q_continue, and train q_continue towards the Q
    of one further segment (a second forward pass). `q_loss`, for next-token data: a Q at every position learns whether
    its loss is within `tolerance` of its loss at full depth (the segments that are left are run for it, without
    gradient); rows take all segments, and what may use the Q is inference."""
    segments: int = Field(1, ge=1, le=64)
    """The most segments of a row (`halt_max_steps`); all of them at evaluation."""
    exploration: float = Field(0.1, ge=0.0, le=1.0)
    """The share of rows that must take a random minimum of 2 .. segments."""
    tolerance: float = Field(0.05, ge=0.0)
    """`q_loss`: how many nats more than at full depth a position may lose for its Q to say that it is enough."""

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.rule in ("none", "q_loss") and self.exploration != 0.1:
            given = f"must be left out where rule is `{self.rule}`, got {self.exploration}"
            raise ValueError(f"exploration {given}; set rule: q, or leave it out")
        if self.rule != "q_loss" and self.tolerance != 0.05:
            given = f"must be left out where rule is `{self.rule}`, got {self.tolerance}"
            raise ValueError(f"tolerance {given}; set rule: q_loss, or leave it out")
        if self.rule == "q_loss" and self.segments == 1:
            raise ValueError(
                "segments must be >= 2 where rule is `q_loss`, got 1: the first segment would be full depth; raise it"
            )
        return self


def halted_rows(spec: HaltingSpec, q: Tensor | None, segments: Tensor, draws: Draws) -> Tensor:
    """[B] bool: the rows that end with this segment. q [B, 2]; segments [B] counts this one."""
    last = segments >= spec.segments
    if spec.rule in ("none", "q_loss") or spec.segments == 1 or q is None or not draws.training:
        return last
    done = q[:, 0] > (q[:, 1] if spec.rule == "q_with_target" else 0.0)
    least = (draws.uniform() < spec.exploration) * draws.integers(2, spec.segments)
    return (last | done) & (segments >= least)
