"""The faults that real use has shown, here and elsewhere, and the tests that protect against each.

A test is tied to a row by ``@pytest.mark.faults("name")``; a name without a row is an error of collection.
``pytest -m faults`` runs these tests alone and prints the table; a row without a test is printed, too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest

__all__ = ["FAULTS"]

FAULTS: dict[str, str] = {  # short name: what pyro_probmix does; one line a row
    # distributions
    "draws at tiny concentration": "λ is drawn in log space; its law is SciPy's from 1e-4 on",
    "huge concentration": "value and gradient stay finite",
    "value on the boundary": "documented values and gradients at the ends of a support",
    "zero times minus infinity": "what has weight 0 is removed before the product, in gradients too",
    "no common support": "refused, rows named",
    "bad weights": "refused with the index; weights 0 and 1 give the member exactly",
    "pool outside its family": "pooled parameters are checked, and named",
    "soft label for a hard likelihood": "a path of its own, the same with and without validation",
    "wide softmax off the simplex": "weights are normalised once; the message says by how much they miss",
    "validation lost on the way": "bad arguments are refused; expand, to_event, mask and pool keep validation",
    "families that are not closed": "pooled numerically, in replicas too, or fused linearly; else refused by name",
    "unequal fixed parameters": "refused wherever they can be read, at construction elsewhere",
    "wrong samplers upstream": "pools draw the law of their density all the same",
    "wrong densities upstream": "pools integrate to one and agree with SciPy all the same",
    "orders without an integral": "Rényi divergences are infinite from there on, with and without validation",
    "mass at an end of the support": "numerical pools are right about it, gradients too, or refuse it",
    "pools under Pyro's methods": "KL of wrapped pools is that of what they fused; has_rsample_ works",
    "missing expert": "a component of weight 0 is removed, NaN or not",
    "large counts in single precision": "log-densities, pools and divergences are right to 1e-3 nats at a million",
    "entropies at the ends": "right for tiny counts and huge concentrations, or refused",
    "zero-inflated after its mean": "draws and expansions do not depend on what was asked before",
    "dtype drift": "the dtype of the input is that of the output; half precision as documented",
    "expansion of a component": "refused where shapes do not broadcast; what was expanded stays as it was",
    "copies and transforms": "pickle, deepcopy, vmap and compile work as promised, in all families and models",
    # batches and graphs
    "NaN in the data": "refused before training, rows named",
    "labels that broadcast": "the shape of labels is checked, with and without validation",
    "scale of a minibatch": "the mean of batch losses is the full loss",
    "odd batches": "empty: refused; one row, an odd last batch: work",
    "a node its own neighbour": "left out by its index; ties, duplicates, bad counts of neighbours are defined",
    "distances far from the origin": "neighbours are SciPy's at any offset",
    # models
    "weights and masks ignored": "honoured in any model, or refused",
    "coefficient without its law": "λ is scored by its law wherever no guide drew it",
    "nothing was fused": "an error",
    "reparametrized sites": "what a reparametrization leaves is no label; fusing it is refused by name",
    "observed covariates": "scored as labels are; the model goes on with the node's own value",
    "labels between labels": "labels that are no numbers are one of the pair's, from one default",
    "exact labels of few families": "exact wherever expectations are known, or refused before training",
    "chains": "markov models are enumerated beside the coefficient",
    "other inference": "other losses, guides and handlers work, or are refused by name with what works",
    "weights drawn once a row": "networks run outside the plate; weights with priors are drawn once",
    # training
    "steps on a non-finite loss": "not taken: parameters and optimiser stay, an error unless skips are asked for",
    "models that meet in the store": "two models never share a parameter; the store of the user is left alone",
    "code in a checkpoint": "checkpoints are tensors and JSON; a hostile file is refused and runs nothing",
    "damaged checkpoint": "a clear error, atomic writes, old schemas load",
    "resume that forgets": "N + N epochs are 2N epochs to the last bit, whatever stopped the first N",
    "random state disturbed": "graphs, evaluation and training leave the global generators as they were",
    "workers that repeat draws": "draws do not depend on the number of workers, and differ between epochs",
    "the first torch.compile ends validation": "a training leaves validation as it found it",
    "gradients of other strides": "gradients have the layout of their parameters; fused steps are the plain ones",
    # devices
    "a device lacks an operation": "drawn on the CPU and moved",
    "tensors on another device": "made where the data are; a step neither copies nor waits",
    # evaluation and tables
    "importance weights over prior draws": "no posterior, no log-likelihood; latents of rows are integrated out of it",
    "a score that is infinitely good": "large counts, far labels and scales of zero have the score that they have",
    "a probability above one by rounding": "taken for one: the calibration error of a batch does not change",
    "one odd cell": "named, or cleaned where unambiguous; numbers never become classes silently",
}


def names_of(item: pytest.Item) -> list[str]:
    """The rows an item is tied to."""
    names = []
    for mark in item.iter_markers("faults"):
        if len(mark.args) != 1 or mark.kwargs or mark.args[0] not in FAULTS:
            given = ", ".join(map(repr, mark.args))
            raise pytest.Collector.CollectError(
                f"{item.nodeid}: faults({given}): expected one of the names in tests/faults.py: {', '.join(FAULTS)}"
            )
        names.append(mark.args[0])
    return names


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """Check the names, and send them along with each report, from other processes too."""
    made = yield
    for item in made if isinstance(made, list) else []:
        if isinstance(item, pytest.Item) and (names := names_of(item)):
            item.user_properties.append(("faults", sorted(set(names))))
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table where ``-m faults`` asks for it."""
    if config.option.collectonly or not re.search(r"(?<!not )\bfaults\b", config.option.markexpr):
        return
    cases, failed = defaultdict(set), defaultdict(set)
    for outcome, reports in terminalreporter.stats.items():
        for report in reports if outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed") else []:
            for key, names in getattr(report, "user_properties", ()):
                for name in names if key == "faults" else ():
                    cases[name].add(report.nodeid)
                    if outcome != "passed":
                        failed[name].add(report.nodeid)
    width = max(map(len, FAULTS))
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'fault':{width}}  cases  passed  what is done")
    for name, behaviour in FAULTS.items():
        numbers = f"{len(cases[name]):5}  {len(cases[name] - failed[name]):6}" if cases[name] else f"{'no test':>13}"
        terminalreporter.write_line(f"{name:{width}}  {numbers}  {behaviour}")
    covered = sum(bool(cases[name]) for name in FAULTS)
    terminalreporter.write_line(f"{covered} of {len(FAULTS)} faults have a test")
