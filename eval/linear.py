"""The linear probe on extracted features: how well a linear classifier reads the class from a frozen network."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler, normalize
from threadpoolctl import threadpool_limits

from pipeline.errors import Refusal

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
HELD_OUT = 0.25
ITERATIONS = 300
# What probabilities follow from beside the rows: they are kept (`eval.measuring`), and not used again by another probe.
MADE_BY = {"probe": f"{STRENGTHS} {HELD_OUT} {ITERATIONS}", "scikit-learn": sklearn.__version__}


@dataclass(frozen=True)
class LinearResult:
    """Outcome of one probe: top-1 `accuracy` on the test rows (0..1), the inverse regularisation strength `chosen_c`,
    and `probabilities` (N_test, C), whose columns belong to the class indices in `classes` (C,)."""

    accuracy: float
    chosen_c: float
    probabilities: np.ndarray
    classes: np.ndarray


def probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    seed: int = 0,
) -> LinearResult:
    """Multinomial logistic regression on l2-normalised, then standardised features.

    The regularisation is chosen on a quarter of the TRAINING rows, drawn class by class from `seed`: the highest
    accuracy, and among equals the lowest log loss. The test rows are looked at once, by the classifier refitted on all
    training rows.

    Args:
        train_features, test_features: (N, D) float.
        train_labels, test_labels: (N,) class indices >= 0. A test class unknown in training counts as an error.

    Raises:
        Refusal: fewer than two training classes, or no class with two rows.
    """
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    held_out = _held_out(train_labels, seed)
    # BLAS threads spin between L-BFGS's short steps: on two busy cores one thread is 5 times (3000 x 1024, 50 classes)
    # to 40 times (800 x 128, 10 classes) as fast as two.
    with threadpool_limits(1):
        return _probe(train_features, train_labels, test_features, test_labels, held_out)


def _probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    held_out: np.ndarray,
) -> LinearResult:
    scaler = StandardScaler().fit(normalize(train_features))
    train, test = (scaler.transform(normalize(x)) for x in (train_features, test_features))
    chosen = max(
        STRENGTHS,
        key=lambda c: _quality(c, train[~held_out], train_labels[~held_out], train[held_out], train_labels[held_out]),
    )
    model = _fit(chosen, train, train_labels)
    probabilities = model.predict_proba(test)
    predicted = model.classes_[probabilities.argmax(1)]
    return LinearResult(float(np.mean(predicted == test_labels)), chosen, probabilities, model.classes_)


def _held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """(N,) bool: a quarter of each class, at least one row; a class with one row stays in the fitted part."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.max() < 2:
        raise Refusal(
            f"a linear probe cannot be fitted to {len(classes)} class(es) with at most"
            f" {counts.max(initial=0)} video(s) each",
            where="the training split",
            remedy="it takes two classes or more, and one of them with at least two training videos",
        )
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(labels), dtype=bool)
    for label, count in zip(classes, counts, strict=True):
        if count > 1:
            rows = rng.permutation(np.flatnonzero(labels == label))
            mask[rows[: max(1, round(count * HELD_OUT))]] = True
    return mask


def _quality(
    c: float, train: np.ndarray, train_y: np.ndarray, test: np.ndarray, test_y: np.ndarray
) -> tuple[float, float]:
    model = _fit(c, train, train_y)
    probabilities = model.predict_proba(test)
    accuracy = float(np.mean(model.classes_[probabilities.argmax(1)] == test_y))
    return accuracy, -float(log_loss(test_y, probabilities, labels=model.classes_))


def _fit(c: float, features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        # A weakly regularised fit of separable classes has no finite optimum worth waiting for; it competes as it
        # stands.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes")  # that are few videos each are classes, too
        return LogisticRegression(C=c, max_iter=ITERATIONS).fit(features, labels)
