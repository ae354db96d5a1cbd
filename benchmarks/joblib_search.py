"""scikit-learn's `GridSearchCV(n_jobs=2)`: its fits as tasks of a workshop, beside joblib's own `loky`.

Both have two warm workers. They take turns in this one run, so that a machine that is busy otherwise hits both; the
ratio of their medians is what counts. A workshop's workers give way to all else on the machine, so loky's are made to
as well: on a busy machine it would be the priorities that are measured. Each turn rests first: the threads of a linear
algebra library go on spinning for a tenth of a second after the last fit of a search, which is made in this process.

Run: `python -m benchmarks.joblib_search --rounds 7`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

import joblib
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from koubou_panel import Workshop
from koubou_panel.engines.guard import give_way

N_JOBS = 2
REST_S = 0.3


def searches():
    """Searches by name, each with its data."""
    small = make_classification(n_samples=500, n_features=20, random_state=0)
    middle = make_classification(n_samples=1_500, n_features=30, random_state=0)
    large = make_classification(n_samples=20_000, n_features=40, random_state=0)
    strengths = [0.01, 0.1, 1.0, 10.0]
    return {
        "40 short fits (logistic regression, 500 × 20)": (
            GridSearchCV(LogisticRegression(), {"C": [*strengths, 0.5, 2.0, 5.0, 20.0]}, cv=5, n_jobs=N_JOBS),
            small,
        ),
        "60 fits (support vectors, 1,500 × 30)": (
            GridSearchCV(SVC(), {"C": strengths, "gamma": [0.01, 0.1, 1.0]}, cv=5, n_jobs=N_JOBS),
            middle,
        ),
        "12 fits of forests (20,000 × 40, an array of 6 MB)": (
            GridSearchCV(
                RandomForestClassifier(n_estimators=8, max_depth=8, random_state=0),
                {"max_features": [2, 4, 6, 8]},
                cv=3,
                n_jobs=N_JOBS,
            ),
            large,
        ),
    }


def be_alike():
    """In a worker of loky: a session of its own that gives way, as a workshop's worker has."""
    os.setsid()
    give_way()


BACKENDS = {"koubou": {}, "loky": {"initializer": be_alike}}


def timed(backend, search, data):
    """Seconds that a search takes, and what it found."""
    time.sleep(REST_S)
    started = time.perf_counter()
    with joblib.parallel_config(backend=backend, **BACKENDS[backend]):
        search.fit(*data)
    return time.perf_counter() - started, search.best_params_


def main() -> None:
    """Print a line for each search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with (
        tempfile.TemporaryDirectory() as folder,
        Workshop(folder, workers=N_JOBS) as shop,
    ):
        for name, (search, data) in searches().items():
            before = len(shop.shop.state.tasks)
            found = [timed(backend, search, data) for backend in BACKENDS]  # warms both
            assert found[0][1] == found[1][1]
            tasks = len(shop.shop.state.tasks) - before
            took = {backend: [] for backend in BACKENDS}
            for turn in range(rounds):
                for backend in sorted(BACKENDS, reverse=bool(turn % 2)):
                    took[backend].append(timed(backend, search, data)[0])
            ours, theirs = (statistics.median(took[backend]) for backend in BACKENDS)
            print(
                f"{name}: koubou {ours:.2f} s ({tasks} tasks a search), loky {theirs:.2f} s, "
                f"ratio {ours / theirs:.2f}"
            )


if __name__ == "__main__":
    main()
