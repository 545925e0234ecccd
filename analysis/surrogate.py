"""A Gaussian process over a search's space: what the trials say about configurations that nobody ran, and how surely.

Matern 5/2 with a length for each parameter. Lengths, strength and noise are themselves uncertain, most of all with few
trials: what is said is a mixture over draws of them, under weak priors. It inverts matrices of all trials, so that it
is for MOST_TRIALS at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from analysis.search_space import Axis

Array = npt.NDArray[np.float64]

MOST_TRIALS = 200
DRAWS = 32
"""Of lengths, strength and noise."""
_ROOT5 = np.sqrt(5.0)
_NOISE = (np.log(0.1), 1.5)
_STRENGTH = (0.0, 1.0)
_LENGTH_SPREAD = 1.0
"""Of the priors of logarithms: mean and standard deviation, for values of mean 0 and variance 1. The lengths grow with
the root of their number, so that a large space is not rougher than a small one."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of given lengths, strength and noise, of values of mean 0 and variance 1."""

    points: Array
    """[trials, axes]"""
    named: npt.NDArray[np.bool_]
    """Axes whose values have no order: two of them differ or do not."""
    lengths: Array
    strength: float
    weights: Array
    factor: Array
    """Of the trials' covariance, noise included, lower triangular."""

    def mean(self, points: Array) -> Array:
        """What it expects there."""
        return np.asarray(self._kernel(points, self.points) @ self.weights)

    def joint(self, points: Array) -> tuple[Array, Array]:
        """What it expects there, and the covariance of its doubt (of the process, not of a trial's noise)."""
        across = self._kernel(points, self.points)
        solved = linalg.solve_triangular(self.factor, across.T, lower=True)
        return across @ self.weights, self._kernel(points, points) - solved.T @ solved

    def _kernel(self, one: Array, other: Array) -> Array:
        squares = (_parts(one, other, self.named) / self.lengths[:, None, None] ** 2).sum(axis=0)
        return self.strength * _matern(np.sqrt(squares))


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A mixture of processes, the most probable one first."""

    processes: list[Process]
    shares: Array
    centre: float
    size: float
    left_out: float
    """Share of the variance that the most probable process foretells of trials that it was not shown, one by one; below
    0: worse than their mean."""

    def mean(self, points: Array) -> Array:
        """What the most probable process expects there."""
        return self.centre + self.size * self.processes[0].mean(points)

    def joint(self, points: Array) -> tuple[Array, Array]:
        """What the mixture expects there, and the covariance of its doubt."""
        found = [process.joint(points) for process in self.processes]
        means, within = (np.stack([each[part] for each in found]) for part in (0, 1))
        mean = self.shares @ means
        apart = means - mean
        covariance = np.einsum("k,kij->ij", self.shares, within) + (apart.T * self.shares) @ apart
        return self.centre + self.size * mean, self.size**2 * covariance


def fit(axes: Sequence[Axis], points: Array, values: Array, spread: Array) -> Surrogate:
    """What these trials leave possible; `spread`: standard deviations of values that were foretold, else 0."""
    from scipy import optimize  # here: `status` does without

    centre, size = float(values.mean()), float(values.std()) or 1.0
    posterior = _Posterior(axes, points, (values - centre) / size, (spread / size) ** 2)
    best = optimize.minimize(
        posterior, posterior.prior_mean, jac=True, method="L-BFGS-B", bounds=posterior.bounds, options={"maxiter": 60}
    ).x
    thetas, shares = _draws(posterior, best)
    processes = [posterior.process(theta) for theta in thetas]
    return Surrogate(processes, shares, centre, size, _left_out(posterior.values, processes[0]))


class _Posterior:
    """Minus the logarithm of how probable logarithms of lengths, strength and noise are."""

    def __init__(self, axes: Sequence[Axis], points: Array, values: Array, known: Array) -> None:
        self.points, self.values, self.known = points, values, known
        self.named = np.array([axis.named for axis in axes])
        self.parts = _parts(points, points, self.named)
        length = 0.5 * np.log(len(axes))
        self.prior_mean = np.array([length] * len(axes) + [_STRENGTH[0], _NOISE[0]])
        self.prior_spread = np.array([_LENGTH_SPREAD] * len(axes) + [_STRENGTH[1], _NOISE[1]])
        ends = (self.prior_mean - 4.0 * self.prior_spread, self.prior_mean + 4.0 * self.prior_spread)
        self.bounds = list(zip(*ends, strict=True))

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """The value and its gradient."""
        scaled = self.parts * np.exp(-2.0 * theta[:-2])[:, None, None]
        strength, noise = np.exp(theta[-2]), np.exp(theta[-1])
        r = np.sqrt(scaled.sum(axis=0))
        kernel = strength * _matern(r)
        off = (theta - self.prior_mean) / self.prior_spread
        factor = linalg.cholesky(kernel + np.diag(noise + self.known), lower=True)
        inverse = linalg.cho_solve((factor, True), np.eye(len(self.values)))
        weights = inverse @ self.values
        loss = 0.5 * self.values @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
        outer = inverse - np.outer(weights, weights)
        slope = strength * 5.0 / 3.0 * (1.0 + _ROOT5 * r) * np.exp(-_ROOT5 * r)
        lengths = 0.5 * np.einsum("ij,dij->d", outer * slope, scaled)
        gradient = np.append(lengths, [0.5 * (outer * kernel).sum(), 0.5 * noise * np.trace(outer)])
        return float(loss), gradient + off / self.prior_spread

    def process(self, theta: Array) -> Process:
        """The process of these lengths, strength and noise."""
        lengths, strength = np.exp(theta[:-2]), float(np.exp(theta[-2]))
        r = np.sqrt((self.parts / lengths[:, None, None] ** 2).sum(axis=0))
        noisy = strength * _matern(r) + np.diag(np.exp(theta[-1]) + self.known)
        factor = linalg.cholesky(noisy, lower=True)
        weights = linalg.cho_solve((factor, True), self.values)
        return Process(self.points, self.named, lengths, strength, weights, factor)


def _draws(posterior: _Posterior, best: Array) -> tuple[list[Array], Array]:
    """Logarithms of lengths, strength and noise with their shares: drawn around the best by the curvature there, and
    weighed by how probable they are against how often they are drawn."""
    step = 1e-3
    slopes = [posterior(best + step * way)[1] - posterior(best - step * way)[1] for way in np.eye(len(best))]
    curvature = np.array(slopes) / (2.0 * step)
    sizes, ways = np.linalg.eigh((curvature + curvature.T) / 2.0)
    root = ways / np.sqrt(np.clip(sizes, 0.25, None))
    normal = np.random.default_rng(0).standard_normal((DRAWS - 1, len(best)))
    low, high = np.array(posterior.bounds).T
    thetas = [best, *np.clip(best + normal @ root.T, low, high)]
    away = np.append(0.0, 0.5 * (normal**2).sum(axis=1))
    logarithms = np.array([-posterior(theta)[0] for theta in thetas]) + away
    shares = np.exp(logarithms - logarithms.max())
    shares = np.minimum(shares / shares.sum(), 4.0 / DRAWS)  # no single draw may stand for all
    return thetas, shares / shares.sum()


def _parts(one: Array, other: Array, named: npt.NDArray[np.bool_]) -> Array:
    """Squared distances by axis, [axes, one, other]."""
    between = one.T[:, :, None] - other.T[:, None, :]
    return np.asarray(np.where(named[:, None, None], between != 0.0, between) ** 2.0)


def _matern(r: Array) -> Array:
    return np.asarray((1.0 + _ROOT5 * r + 5.0 / 3.0 * r**2) * np.exp(-_ROOT5 * r))


def _left_out(values: Array, process: Process) -> float:
    """By the closed form of leaving one out, against the mean of the others."""
    inverse = linalg.cho_solve((process.factor, True), np.eye(len(values)))
    errors = process.weights / np.diag(inverse)
    others = (values - values.mean()) * len(values) / (len(values) - 1)
    total = float((others**2).sum())
    return 1.0 - float((errors**2).sum()) / total if total > 0.0 else 0.0
