"""Lines and curves through reports of one training, whose noise at a report leans on the noise at the one before.

Least squares with first-order autoregressive noise, integrated over its strength and over any family of designs, so
that the intervals hold where a few neighbouring reports say less than their number. Checked by simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

STRENGTHS = np.linspace(0.0, 0.9, 10)
"""Of the autocorrelation, equally likely before the data are seen."""


@dataclass(frozen=True, slots=True)
class Draws:
    """From what the data leave possible."""

    coefficients: Array
    """[N, p]."""
    designs: npt.NDArray[np.int64]
    """[N]: which design each was drawn with."""


def posterior_draws(designs: Array, curves: Array, number: int, seed: int = 0) -> Draws:
    """Coefficients of the mean of `curves` [n, R], from flat priors; `designs` [K, n, p] are equally likely before.

    The curves tell how large the noise is, and it is taken as common to them: their mean is no more certain than one.
    Needs n > p. Curves that lie on a design exactly leave no doubt.
    """
    count, n, p = designs.shape
    degrees = curves.shape[1] * (n - p)
    x, y = _whitened(designs, 1), _whitened(curves, 0)
    turned = np.swapaxes(x, -1, -2)
    gram = turned @ x
    inverse = np.linalg.inv(gram)
    own = inverse @ (turned @ y[:, None])
    residual = y[:, None] - x @ own
    variance = np.maximum((residual**2).sum((-2, -1)), 1e-300) / degrees
    scale = np.log1p(-(STRENGTHS**2))[:, None] - np.linalg.slogdet(gram)[1]
    evidence = 0.5 * (curves.shape[1] * scale - degrees * np.log(variance)).ravel()
    random = np.random.default_rng(seed)
    weights = np.exp(evidence - evidence.max())
    cells = random.choice(len(weights), size=number, p=weights / weights.sum())
    roots = np.linalg.cholesky(inverse * variance[..., None, None]).reshape(-1, p, p)
    spread = np.sqrt(degrees / random.chisquare(degrees, size=number))
    noise = np.einsum("nij,nj->ni", roots[cells], random.standard_normal((number, p)))
    means = own.mean(-1).reshape(-1, p)
    return Draws(means[cells] + spread[:, None] * noise, cells % count)


def _whitened(values: Array, axis: int) -> Array:
    """By strength, Prais and Winsten's transform along `axis`: what it leaves of autoregressive noise is white."""
    moved = np.moveaxis(values, axis, 0)
    strengths = STRENGTHS.reshape(-1, *[1] * moved.ndim)
    first = moved[None, :1] * np.sqrt(1.0 - strengths**2)
    return np.moveaxis(np.concatenate([first, moved[None, 1:] - strengths * moved[None, :-1]], axis=1), 1, axis + 1)
