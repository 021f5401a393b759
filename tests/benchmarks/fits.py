"""What fits of the default regressor cost, and how good they are, beside NGBoost and CatBoost, in one run.

    pip install ngboost catboost
    python tests/benchmarks/fits.py [--cases small,diabetes,large,members]

Targets are y = x₀ sin 3x₁ + x₂ + 0.3 e^{x₃/2} ε of standard Normal features, 4,500 × 10 (small; members: five of them)
and 40,000 × 9 (large), and scikit-learn's diabetes. A fifth of the rows chooses the number of trees, as it chooses the
epoch of ours; scores are the negative log-likelihood of 2,000 fresh rows, 88 of diabetes. Seconds are the processor's,
of one thread. A peer that is not installed is left out by name.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes

import pyro_probmix as pm

Array = NDArray[np.float64]
Data = tuple[Array, Array, Array, Array]
Score = Callable[[Array, Array], float]


def drawn(rows: int, features: int, fresh: int = 2000) -> Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows + fresh, features))
    y = x[:, 0] * np.sin(3 * x[:, 1]) + x[:, 2] + 0.3 * np.exp(x[:, 3] / 2) * rng.normal(size=len(x))
    return x[:rows], y[:rows], x[rows:], y[rows:]


def diabetes() -> Data:
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[88:], order[:88]
    return x[train], y[train], x[test], y[test]


def ours(**settings: Any) -> Callable[[Array, Array], Score]:
    def fit(x: Array, y: Array) -> Score:
        model = pm.ProbMixRegressor(random_state=0, **settings).fit(x, y)
        return lambda x, y: -model.log_likelihood(x, y)

    return fit


def normal_nll(y: Array, loc: Array, variance: Array) -> float:
    return float(np.mean(0.5 * np.log(2 * np.pi * variance) + (y - loc) ** 2 / (2 * variance)))


def ngboost(x: Array, y: Array) -> Score:
    from ngboost import NGBRegressor

    model, held = NGBRegressor(n_estimators=2000, learning_rate=0.02, verbose=False, random_state=0), len(y) // 5
    model.fit(x[held:], y[held:], X_val=x[:held], Y_val=y[:held], early_stopping_rounds=50)
    return lambda x, y: float(-model.pred_dist(x).logpdf(y).mean())


def catboost(x: Array, y: Array) -> Score:
    from catboost import CatBoostRegressor

    model, held = (
        CatBoostRegressor(
            loss_function="RMSEWithUncertainty", random_seed=0, thread_count=1, verbose=False,
            allow_writing_files=False, early_stopping_rounds=50,
        ),
        len(y) // 5,
    )  # fmt: skip
    model.fit(x[held:], y[held:], eval_set=(x[:held], y[:held]))
    return lambda x, y: normal_nll(y, *model.predict(x).T)


PEERS = {"ngboost": ngboost, "catboost": catboost}
CASES: dict[str, tuple[Callable[[], Data], dict[str, Callable[[Array, Array], Score]]]] = {
    "small": (lambda: drawn(4500, 10), {"default": ours(), "normal": ours(likelihood="normal"), **PEERS}),
    "members": (lambda: drawn(4500, 10), {"one": ours(), "five": ours(num_members=5), "ngboost": ngboost}),
    "diabetes": (diabetes, {"default": ours(), **PEERS}),
    "large": (lambda: drawn(40_000, 9), {"default": ours(), "erm": ours(method="erm"), **PEERS}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    torch.set_num_threads(1)
    for name in parser.parse_args().cases.split(","):
        data, methods = CASES[name]
        x, y, fresh_x, fresh_y = data()
        ours()(x[:100], y[:100])  # what is imported late
        first: float | None = None
        for method, fit in methods.items():
            start = time.process_time()
            try:
                score = fit(x, y)
            except ModuleNotFoundError as error:
                print(f"{name:10}{method:10} left out, for {error.name} is not installed", flush=True)
                continue
            seconds = time.process_time() - start
            first = first or seconds
            ratio = f"first ÷ it {first / seconds:6.2f}"
            print(f"{name:10}{method:10}{seconds:8.2f} s   {ratio}   NLL {score(fresh_x, fresh_y):7.4f}", flush=True)


if __name__ == "__main__":
    main()
