"""The law that losses follow over parameters and tokens, fitted with error bars: pure.

L(N, D) = E + A / N^a + B / D^b: what no model can lose, what more parameters would gain, and what
more tokens would. Source: Hoffmann et al. 2022, Training Compute-Optimal Large Language Models,
section 3.3 and appendix D.3: Huber's loss of the logarithms, from several starts.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

# A law holds where it was measured, and a little further.
MOST_TIMES = 10.0


class Undetermined(ValueError):
    """The points do not determine what is asked; says why.

    Attributes:
      curves: what goes through the points all the same, to read it where they lie; None without.
    """

    def __init__(self, why: str, curves: Law | None = None):
        super().__init__(why)
        self.curves = curves


@dataclasses.dataclass(frozen=True)
class Points:
    """Runs, each at the end of its own schedule.

    Attributes:
      n_params_P: weights without position embeddings.
      n_tokens_P: tokens trained on, those that came again counted again.
      flops_P: of all updates.
      loss_P: val, nats per token.
    """

    n_params_P: np.ndarray
    n_tokens_P: np.ndarray
    flops_P: np.ndarray
    loss_P: np.ndarray

    def __len__(self) -> int:
        return len(self.loss_P)

    @property
    def most_flops(self) -> float:
        """The largest compute that was measured."""
        return float(self.flops_P.max())


@dataclasses.dataclass(frozen=True)
class Bar:
    """A number with its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ± {self.error:.1g}"


@dataclasses.dataclass(frozen=True)
class Law:
    """A fitted law, and what it comes to when the points are drawn anew, S times.

    Attributes:
      points: what it was fitted to.
      theta: log E, log A, a, log B, b; A and B for parameters and tokens over `middle`.
      theta_S5: the same of each draw.
      middle: geometric means of the points' parameters and tokens.
    """

    points: Points
    theta: np.ndarray
    theta_S5: np.ndarray
    middle: tuple[float, float]

    @property
    def floor(self) -> Bar:
        """E, nats per token: what neither parameters nor tokens take away."""
        return bar_of(np.exp(self.theta[0]), np.exp(self.theta_S5[:, 0]))

    @property
    def of_params(self) -> Bar:
        """a, the exponent of parameters."""
        return bar_of(self.theta[2], self.theta_S5[:, 2])

    @property
    def of_tokens(self) -> Bar:
        """b, the exponent of tokens."""
        return bar_of(self.theta[4], self.theta_S5[:, 4])

    @property
    def scales(self) -> tuple[float, float]:
        """A and B for parameters and tokens as they are, not over `middle`."""
        _, log_a, a, log_b, b = self.theta
        n, d = self.middle
        return float(np.exp(log_a) * n**a), float(np.exp(log_b) * d**b)

    @functools.cached_property
    def residual(self) -> float:
        """How far points lie from the law, relative: the root of the mean square."""
        logs = np.log(self._losses(self.theta, self.points.n_params_P, self.points.n_tokens_P))
        return float(np.sqrt(np.mean((logs - np.log(self.points.loss_P)) ** 2)))

    def loss(self, *, n_params: float, n_tokens: float, flops: float) -> Bar:
        """What a run would end on.

        Raises:
          Undetermined: if it computes more than MOST_TIMES what any point did.
        """
        self.check_reach(flops)
        losses_S = self._losses(self.theta_S5.T, n_params, n_tokens)
        return bar_of(self._losses(self.theta, n_params, n_tokens), losses_S)

    def draws(self, *, n_params: float, n_tokens: float) -> np.ndarray:
        """The same of each draw, S of them."""
        return self._losses(self.theta_S5.T, n_params, n_tokens)

    def check_reach(self, flops: float) -> None:
        """Raises Undetermined for more than MOST_TIMES the largest compute measured."""
        most = self.points.most_flops
        if flops > MOST_TIMES * most:
            raise Undetermined(
                f"{flops:.2g} FLOPs are {flops / most:.0f} times the largest compute measured, "
                f"{most:.2g}; a law is not extrapolated beyond {MOST_TIMES:g} times"
            )

    @property
    def frontier(self) -> Frontier:
        """What the best division of compute between parameters and tokens comes to."""
        points = self.points
        logs = np.log(points.n_params_P / self.middle[0])
        # FLOPs per token: in proportion to parameters, but for attention's.
        growth, log_cost = np.polyfit(logs, np.log(points.flops_P / points.n_tokens_P), 1)
        cost = float(np.exp(log_cost)) * self.middle[1]
        return Frontier(self, float(growth), cost)

    def losses(self, n_params: object, n_tokens: object) -> np.ndarray:
        """The law's losses, without errors and however far."""
        return self._losses(self.theta, n_params, n_tokens)

    def _losses(self, theta: np.ndarray, n_params: object, n_tokens: object) -> np.ndarray:
        n, d = (
            np.log(np.asarray(value, float) / middle)
            for value, middle in zip((n_params, n_tokens), self.middle, strict=True)
        )
        return np.exp(log_sum(log_terms(theta, n, d)))


@dataclasses.dataclass(frozen=True)
class Frontier:
    """The lowest loss that compute C can buy: E + F / C^c, by a law.

    Where an update's FLOPs grow as N^growth · D, the derivative of L along C = const. is zero at
    N^(a + growth·b) = a A / (growth b B) · C^b.

    Attributes:
      growth: the exponent of parameters in FLOPs per token; 1 but for attention.
      cost: FLOPs at the middle of the law's points.
    """

    law: Law
    growth: float
    cost: float

    @property
    def exponent(self) -> Bar:
        """c: how fast the loss above E falls with compute."""

        def of(theta):
            return theta[2] * theta[4] / (theta[2] + self.growth * theta[4])

        return bar_of(of(self.law.theta), of(self.law.theta_S5.T))

    @property
    def of_params(self) -> Bar:
        """The exponent of compute with which the best number of parameters grows."""

        def of(theta):
            return theta[4] / (theta[2] + self.growth * theta[4])

        return bar_of(of(self.law.theta), of(self.law.theta_S5.T))

    def n_params(self, flops: float) -> Bar:
        """The best number of parameters; raises Undetermined out of reach."""
        self.law.check_reach(flops)
        values = (
            self._log_params(self.law.theta, flops),
            self._log_params(self.law.theta_S5.T, flops),
        )
        value, draws = (self.law.middle[0] * np.exp(each) for each in values)
        return bar_of(value, draws)

    def loss(self, flops: float) -> Bar:
        """The lowest loss; raises Undetermined out of reach."""
        self.law.check_reach(flops)
        return bar_of(*(self._loss(t, flops) for t in (self.law.theta, self.law.theta_S5.T)))

    def _log_params(self, theta: np.ndarray, flops: float) -> np.ndarray:
        _, log_a, a, log_b, b = theta
        ratio = np.log(a) + log_a - np.log(self.growth * b) - log_b
        return (ratio + b * np.log(flops / self.cost)) / (a + self.growth * b)

    def _loss(self, theta: np.ndarray, flops: float) -> np.ndarray:
        n = self._log_params(theta, flops)
        d = np.log(flops / self.cost) - self.growth * n
        return np.exp(log_sum(log_terms(theta, n, d)))


def log_terms(theta: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The logarithms of the law's three terms; n and d are logarithms."""
    log_e, log_a, a, log_b, b = theta
    shape = np.broadcast_shapes(np.shape(n), np.shape(d), np.shape(a))
    return np.stack([np.broadcast_to(t, shape) for t in (log_e, log_a - a * n, log_b - b * d)])


def log_sum(terms: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The logarithm of the sum of what three terms are logarithms of."""
    return np.logaddexp(np.logaddexp(terms[0], terms[1]), terms[2])


def bar_of(value: object, draws_S: np.ndarray) -> Bar:
    """The value, with half of what holds two thirds of the draws."""
    low, high = np.percentile(draws_S, [15.87, 84.13])
    return Bar(float(np.asarray(value)), float(high - low) / 2)
