"""Features as data: every container gives the same rows; what is wrong with one is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from saddlescape.data import load
from saddlescape.data.sources.features import found_in, read_rows
from saddlescape.errors import InputError

rng = np.random.default_rng(0)
X, Y = rng.normal(3, 2, (40, 5)), np.arange(40) % 4
TEST_X, TEST_Y = rng.normal(3, 2, (8, 5)), np.arange(8) % 4
ARRAYS = {"features": X, "labels": Y, "test_features": TEST_X, "test_labels": TEST_Y}


def npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def folder_of_npy(folder: Path, **arrays: Any) -> Path:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def safetensors(folder: Path, **arrays: Any) -> Path:
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "set.safetensors")
    return folder / "set.safetensors"


def parquet(folder: Path, **arrays: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, prefix in (("train", ""), ("test", "test_")):
        if f"{prefix}features" in arrays:
            columns = {"embedding": list(arrays[f"{prefix}features"]), "label": list(arrays[f"{prefix}labels"])}
            pq.write_table(pa.table(columns), folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("write", [npz, folder_of_npy, safetensors, parquet])
def test_every_container_gives_the_same_data(tmp_path: Path, write: Any) -> None:
    data = load(write(tmp_path, **ARRAYS))
    assert torch.equal(data.train.images.flatten(1), torch.from_numpy(X.astype(np.float32)))  # type: ignore[union-attr]
    assert data.train.labels.tolist() == Y.tolist() and data.test.labels.tolist() == TEST_Y.tolist()
    assert data.class_counts == [10] * 4 and data.augment == "none"
    shown = data.preprocess.normalize(data.train.images).flatten(1)  # type: ignore[union-attr]
    expected = (X - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_allclose(shown.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("labels", [Y, Y.astype(float), Y.astype(np.uint8), torch.from_numpy(Y)])
@pytest.mark.parametrize("features", [X, X.astype(np.float16), torch.from_numpy(X), X.tolist()])
def test_arrays_of_any_kind(features: Any, labels: Any) -> None:
    found = found_in({"features": features, "labels": labels})
    assert found.classes == ["0", "1", "2", "3"] and found.train.images.shape == (40, 5, 1, 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("labels", [np.array(list("dcba"))[Y], np.array(list("dcba"), dtype=object)[Y]])
def test_names_are_sorted_unless_their_order_is_given(labels: Any) -> None:
    assert found_in({"features": X, "labels": labels}).classes == list("abcd")
    given = found_in({"features": X, "labels": labels, "class_names": list("dcba")})
    assert given.classes == list("dcba") and given.train.labels.tolist() == Y.tolist()


def test_without_a_test_set_a_fifth_of_each_class_is_set_aside_and_draws_work(tmp_path: Path) -> None:
    data = load(npz(tmp_path, features=X, labels=Y))
    assert (len(data.train), len(data.test)) == (32, 8)
    assert load(npz(tmp_path, features=X, labels=Y), imbalance=4).class_counts == [8, 5, 3, 2]
    longer = load(npz(tmp_path, features=np.vstack([X, X[:1]]), labels=np.append(Y, 0)))
    assert set(longer.test.names or ()) >= set(data.test.names or ())  # a new row moves no other one


def test_a_constant_column_stays_finite(tmp_path: Path) -> None:
    data = load(npz(tmp_path, features=np.column_stack([X, np.full(40, 7.0)]), labels=Y))
    shown = data.preprocess.normalize(data.train.images).flatten(1)  # type: ignore[union-attr]
    assert torch.isfinite(shown).all() and (shown[:, -1] == 0).all()


NAN = X.copy()
NAN[3, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": Y}, "no array 'features'"),
        ({"features": X}, "features without labels"),
        ({"features": X, "labels": Y[:-1]}, r"shape \[39\]; 40 rows"),
        ({"features": X[0], "labels": Y}, r"shape \[5\]; expected \[rows, columns\]"),
        ({"features": X[:, :0], "labels": Y}, "neither of them 0"),
        ({"features": NAN, "labels": Y}, "1 rows hold NaN.*first row 3"),
        ({"features": X * 1e300, "labels": Y}, "more than float32"),
        ({"features": X.astype(str), "labels": Y}, "expected numbers"),
        ({"features": X, "labels": Y - 1}, "row 0 has -1"),
        ({"features": X, "labels": Y + 0.5}, "float64; expected integers"),
        ({"features": X, "labels": Y + 1000}, "without gaps"),
        ({"features": X, "labels": Y * 0}, "a single class"),
        (ARRAYS | {"test_features": TEST_X[:, :3]}, "3 columns, training ones 5"),
        (ARRAYS | {"test_labels": TEST_Y + 1}, "label 4, none of the 4"),
        (ARRAYS | {"test_labels": np.array(list("abcd"))[TEST_Y]}, "unlike the training"),
        (ARRAYS | {"train_features": X}, "both features and train_features"),
        (ARRAYS | {"wights": X}, "unknown array 'wights'"),
    ],
)
def test_what_is_wrong_is_one_line(arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        found_in(arrays)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\3\4 not a zip", b"\xff" * 100])
def test_a_damaged_file_is_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"set{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"set{suffix}"):
        load(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = npz(tmp_path, features=np.array([{}, {}], dtype=object), labels=[0, 1])
    with pytest.raises(InputError, match="cannot be read as arrays"):
        load(path)


def test_a_single_npy_is_for_prediction_only(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InputError, match="a single array"):
        load(tmp_path / "x.npy")
    assert read_rows(tmp_path / "x.npy").shape == (40, 5, 1, 1)
