"""How far answers lie from those a reward model was trained on, as one number per step of a policy run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guerdon.evaluate.columns import Floats


@dataclass(frozen=True, eq=False)
class Novelty:
    """Mean and precision of the features of training answers, and their own mean squared distance from it.

    Squared Mahalanobis distance in the features a reward model's head reads is the standard measure of what lies out of
    distribution (Lee et al. 2018, arXiv 1807.03888). The covariance is mixed with a tenth of its mean variance, so that
    fewer answers than dimensions will do.
    """

    mean: Floats
    precision: Floats
    typical: float

    @classmethod
    def fit(cls, features: Floats) -> Novelty:
        """From features (n, width) of training answers; rows with NaN are left out. Half of the rows set the mean and the
        covariance, the other half the typical distance, which would be too small on the rows that were fitted.
        """
        known = features[np.isfinite(features).all(1)].astype(np.float64)
        fitted, fresh = known[::2], known[1::2]
        covariance = np.atleast_2d(np.cov(fitted, rowvar=False))
        width = covariance.shape[0]
        mixed = 0.9 * covariance + 0.1 * np.trace(covariance) / width * np.eye(width)
        found = cls(fitted.mean(0), np.linalg.inv(mixed), 1.0)
        return cls(found.mean, found.precision, found.distance(fresh))

    def distance(self, features: Floats) -> float:
        """Mean squared distance of answers (n, width) over that of training answers: 1 is like them, 4 twice as far."""
        found = self.distances(features)
        known = found[np.isfinite(found)]
        return float(known.mean()) if len(known) else np.nan

    def distances(self, features: Floats) -> Floats:
        """The same of each answer, (n,); NaN where its features hold NaN."""
        centred = features.astype(np.float64) - self.mean
        return np.asarray(np.einsum("ni,ij,nj->n", centred, self.precision, centred) / self.typical)
