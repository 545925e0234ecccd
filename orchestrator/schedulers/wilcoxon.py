"""Of an arm's configurations that are repeated over seeds, those that lose get no more of them (Optuna's pruner).

A Wilcoxon signed-rank test pairs a configuration with the best one seed by seed. It prunes replicas, not the trials of
a search, so it stands in `replicas.pruner`.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from optuna.pruners import BasePruner, WilcoxonPruner
from pydantic import Field

from hrm.spec import Spec


class WilcoxonSpec(Spec):
    """The signed-rank rule."""

    kind: Literal["wilcoxon"] = "wilcoxon"
    p_threshold: float = Field(0.1, gt=0.0, lt=1.0)
    """One-sided, of each test. Looking after every seed is not corrected for: configurations are chosen by it, arms are
    not compared."""
    startup_seeds: int = Field(2, ge=2)
    """Seeds before the first test."""

    @property
    def fewest_seeds(self) -> int:
        """Of so many pairs the least p is below the threshold: 2 ** -n."""
        return max(self.startup_seeds, math.floor(-math.log2(self.p_threshold)) + 1)

    def build(self) -> BasePruner:
        """The pruner of a study whose trials are configurations and whose steps are seeds."""
        return WilcoxonPruner(p_threshold=self.p_threshold, n_startup_steps=self.startup_seeds)

    @classmethod
    def smoke(cls) -> Self:
        """A setting for contract tests."""
        return cls()
