"""Labels as a classifier is given them, and as it is trained on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array, column_or_1d, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from pyro_probmix._checks import check_number, name_rows

__all__ = ["Labels", "row_names"]


@dataclass(frozen=True)
class Labels:
    """Labels of rows.

    Args:
        kind: ``"classes"``, one a row; ``"several"``, each there or not; or ``"soft"``, the probability of each class.
        classes: the classes, or the columns of a matrix.
        values: positions in ``classes``, of shape ``(n,)``, or a matrix of shape ``(n, C)``.
    """

    kind: str
    classes: NDArray[Any]
    values: NDArray[Any]

    @classmethod
    def of(cls, y: Any, ordered: bool = False) -> Labels:
        """Those of training rows.

        Raises:
            ValueError: if they are numbers that are no classes, a matrix of neither kind, or text without an order
                where there is to be one.
        """
        known = _ordered_categories(y)
        names, y = _column_names(y), _array("y", y, warn=True)
        if y.ndim == 2:
            kind = _kind_of_matrix("y", y)
            return cls(kind, names if names is not None else np.arange(y.shape[1]), y.astype(np.float64))
        check_classification_targets(y)
        classes, values = np.unique(y, return_inverse=True)
        if ordered and known is not None:
            present = set(classes.tolist())
            classes = np.array([label for label in known if label in present], dtype=classes.dtype)
            values = _positions(classes, y)
        elif ordered and classes.dtype.kind not in "biuf":
            raise ValueError(
                'y: expected numbers or an ordered category of pandas for likelihood "ordinal", got text, whose '
                "order is not known"
            )
        return cls("classes", classes, values)

    def others(self, name: str, y: Any, strict: bool = True) -> Labels:
        """Labels of other rows, of the same classes: an unknown class is refused, or has the position −1."""
        names, y = row_names(y), _array(name, y)
        if y.ndim == 2:
            kind = _kind_of_matrix(name, y)
            if "classes" in (self.kind, kind) or y.shape[1] != len(self.classes):
                raise ValueError(f"{name}: expected labels as in fit, of {len(self.classes)} classes, got {y.shape}")
            return replace(self, values=y.astype(np.float64))
        if self.kind == "several":
            raise ValueError(f"{name}: expected a matrix of {len(self.classes)} columns, as in fit, got {y.shape}")
        values = _positions(self.classes, y)
        if strict and (values < 0).any():
            known, first = ", ".join(map(repr, self.classes[:10].tolist())), y[values < 0].tolist()[0]
            rows = name_rows(torch.as_tensor(values < 0), names)
            raise ValueError(f"{name}: expected the classes of training, {known}, got others, as {first!r}, in {rows}")
        if strict and self.kind == "soft":
            return replace(self, values=np.eye(len(self.classes))[values])
        return Labels("classes", self.classes, values)

    def take(self, index: Any) -> Labels:
        """Those of some rows; classes without a row are left out."""
        values = self.values[index]
        if self.kind != "classes":
            return replace(self, values=values)
        present, values = np.unique(values, return_inverse=True)
        return Labels(self.kind, self.classes[present], values)

    def weighted(self, weight: NDArray[np.float64] | None, class_weight: Any) -> NDArray[np.float64] | None:
        """The weights of rows times those of their classes."""
        if class_weight is None:
            return weight
        if self.kind != "classes":
            raise ValueError("class_weight: expected None for a matrix of labels, got one; sample_weight does the same")
        if not (class_weight == "balanced" or isinstance(class_weight, dict)):
            raise ValueError(f'class_weight: expected "balanced", weights by label, or None, got {class_weight!r}')
        known = self.classes.tolist()
        for label, value in class_weight.items() if isinstance(class_weight, dict) else ():
            check_number(f"class_weight[{label!r}]", value, "[0, inf)")
        if isinstance(class_weight, dict) and not class_weight.keys() >= {*known}:
            for label in class_weight:
                if label not in known:
                    listed = ", ".join(map(repr, known[:10]))
                    raise ValueError(f"class_weight: expected weights of the classes {listed}, got one of {label!r}")
        own = compute_sample_weight(class_weight, self.classes[self.values])
        return own if weight is None else own * weight


def row_names(*parts: Any) -> NDArray[Any] | None:
    """What rows are called: the index of the first of these that is of pandas."""
    return next((np.asarray(part.index) for part in parts if hasattr(part, "iloc")), None)


def _array(name: str, y: Any, warn: bool = False) -> NDArray[Any]:
    y = check_array(y, ensure_2d=False, dtype=None, input_name=name, ensure_min_samples=0)
    none = np.array([row is None for row in y.tolist()] if y.dtype == object and y.ndim == 1 else [], bool)
    if none.any():
        raise ValueError(f"{name}: expected a label in each row, got None in {name_rows(torch.as_tensor(none))}")
    return y if y.ndim == 2 and y.shape[1] > 1 else column_or_1d(y, warn=warn)


def _kind_of_matrix(name: str, y: NDArray[Any]) -> str:
    if y.dtype.kind in "biuf":
        if ((y == 0) | (y == 1)).all():
            return "several"
        good = (y >= 0).all(1) & np.isclose(y.sum(1), 1, rtol=0, atol=1e-6)
        if good.all():
            return "soft"
        which = f"got others in {name_rows(torch.as_tensor(~good))}"
    else:
        which = f"got {y.dtype}"
    raise ValueError(
        f"{name}: expected labels of shape (n,), a matrix of zeros and ones, or probabilities whose rows add up to "
        f"one, {which}"
    )


def _positions(classes: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
    """Where each label is among the classes, −1 where it is not."""
    places = {label: place for place, label in enumerate(classes.tolist())}
    return np.array([places.get(label, -1) for label in y.tolist()], np.int64)


def _ordered_categories(y: Any) -> list[Any] | None:
    """The categories of an ordered column of pandas, in their order."""
    if getattr(y, "ndim", 1) == 2 and hasattr(y, "iloc") and y.shape[1] == 1:
        y = y.iloc[:, 0]
    dtype = getattr(y, "dtype", None)
    return list(dtype.categories) if dtype is not None and getattr(dtype, "ordered", False) else None


def _column_names(y: Any) -> NDArray[Any] | None:
    columns = getattr(y, "columns", None)
    return None if columns is None else np.asarray(columns)
