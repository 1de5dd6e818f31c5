"""Elastic weight consolidation: weights that replay hangs on are held near the parent.

Input: the trainable weights of the parent and their Fisher information. Output: a penalty and its
gradient, in closed form and the same on every worker, so that it is added once a step, after the
workers have added up theirs.

With an adapter the anchor is its factors as the parent had them, not the product they make. In the
first cycle on a base the factors B are zero, so that A has no Fisher information and moves freely;
B, which all that is learned goes through, has it.
"""

from torch import Tensor


class ElasticPenalty:
    """lambda / 2 * sum_i F_i (theta_i - theta*_i)^2.

    Equation 3 of Kirkpatrick et al. 2017, arXiv 1612.00796, with the parent as theta*.
    """

    def __init__(self, anchor: Tensor, fisher: Tensor, *, weight: float) -> None:
        """``anchor`` theta* and ``fisher`` F: [number of trainable weights], kept as they are."""
        self._anchor = anchor.clone()
        self._fisher = fisher
        self._weight = weight

    def add_gradient(self, values: Tensor, gradient: Tensor) -> float:
        """Add lambda F (theta - theta*) to ``gradient``, in place.

        Returns sum_i F_i (theta_i - theta*_i)^2 / 2, without lambda, at ``values``.
        """
        pull = self._fisher * (values - self._anchor)
        gradient.add_(pull, alpha=self._weight)
        return 0.5 * float(pull @ (values - self._anchor))
