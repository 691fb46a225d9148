"""What is promised of a number, and that it holds on a CPU."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import uebench.cells.determinism as module
from tests.execute.driver import FIELDS, results
from uebench.cells.config import make_config
from uebench.cells.determinism import (
    CUBLAS,
    NO_DETERMINISTIC,
    determinism,
    limited_by_poison,
    n_irreproducible,
    reproducibility,
)
from uebench.cells.plan import resolve_precision
from uebench.store.store import Store
from uebench.suite.run import execute, prepare

MATRIX = {**FIELDS, "attacks": "none,lsp,ar", "defenses": "standard,ueraser_lite"}
MATRIX["protocol_options"] = {"epochs": 1, "batch_size": 16}
MATRIX["set"] = {"ar.draws": 5000}


def by_key(store: Store, jobs: int, **fields: Any) -> dict[str, Any]:
    """Run the matrix and return its results by key."""
    matrix = prepare(make_config({**MATRIX, **fields}), "cpu", jobs, store=store)
    execute(matrix)
    return {cell["key"]: cell for cell in results(matrix.cells, store)}


@pytest.mark.slow
def test_jobs_and_order_do_not_change_any_bit(tmp_path: Path) -> None:
    one = by_key(Store(tmp_path / "1"), 1)
    turned = {"attacks": "ar,lsp,none", "defenses": "ueraser_lite,standard"}
    three = by_key(Store(tmp_path / "3"), 3, **turned)
    assert len(one) == 6
    assert one == three


def test_a_record_says_what_is_promised(store: Store) -> None:
    matrix = prepare(
        make_config({**MATRIX, "attacks": "lsp", "defenses": "standard", "set": {}}),
        "cpu",
        1,
        store=store,
    )
    execute(matrix)
    assert n_irreproducible(matrix.cells, store) == 0
    (cell,) = matrix.cells
    for kind, key in (("cell", cell.key), ("poison", cell.poison.key)):
        found = store.read(kind, key)
        assert found is not None
        assert found[1]["determinism"] == {
            "bit_identical": True,
            "on": "CPUs of this type",
            "not_promised": [],
        }


def test_known_cells_without_the_promise_are_counted(store: Store) -> None:
    matrix = prepare(
        make_config({**MATRIX, "attacks": "none", "defenses": "standard", "set": {}}),
        "cpu",
        1,
        store=store,
    )
    assert n_irreproducible(matrix.cells, store) == 0, "what is not known is not counted"
    store.write("cell", matrix.cells[0].key, {"determinism": reproducibility("cuda")})
    assert n_irreproducible(matrix.cells, store) == 1


def test_threads_are_not_promised() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert reproducibility("cpu")["not_promised"] == ["2 threads"]
    finally:
        torch.set_num_threads(before)


def test_a_gpu_promises_what_its_kernels_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert reproducibility("cuda")["not_promised"] == ["kernels chosen for speed"]
    with determinism("cuda", asked=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert module.os.environ["CUBLAS_WORKSPACE_CONFIG"] == CUBLAS
        assert reproducibility("cuda")["bit_identical"]
        for _ in range(2):
            warnings.warn(f"some_kernel {NO_DETERMINISTIC}, but you set", UserWarning, stacklevel=1)
        assert reproducibility("cuda")["not_promised"] == ["some_kernel"]
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
        assert "CUBLAS_WORKSPACE_CONFIG=:0:0" in reproducibility("cuda")["not_promised"]
    assert not torch.are_deterministic_algorithms_enabled()
    assert reproducibility("cuda")["not_promised"] == ["kernels chosen for speed"]


def test_on_a_cpu_no_kernel_is_changed() -> None:
    with determinism("cpu", asked=True):
        assert not torch.are_deterministic_algorithms_enabled()


def test_precision_for_remote_gpus_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"protocol\.precision=bf16"):
        resolve_precision("auto", "cuda:0")
    assert resolve_precision("fp32", "cuda:0") == "fp32"


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [(True, True, "bf16"), (False, True, "bf16"), (True, False, "bf16"), (False, False, "fp32")],
)
def test_a_cpu_that_computes_in_bf16_takes_it(
    amx: bool, avx512: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("fp32", "cpu") == "fp32"


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits_again(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    made = []
    for name in ("a", "b"):
        store = Store(tmp_path / name)
        config = make_config({**MATRIX, "attacks": "none,lsp"})
        matrix = prepare(config, "cuda", 1, store=store, deterministic=True)
        execute(matrix)
        for cell in matrix.cells:
            found = store.read("cell", cell.key)
            assert found is not None
            if not found[1]["determinism"]["bit_identical"]:
                pytest.skip(f"not promised: {found[1]['determinism']}")
        made.append(results(matrix.cells, store))
    assert made[0] == made[1]


def test_a_cell_promises_no_more_than_its_poison() -> None:
    own = {"bit_identical": True, "on": "CPUs of this type", "not_promised": []}
    gpu = {"bit_identical": False, "on": "GPUs", "not_promised": ["kernels chosen for speed"]}
    assert limited_by_poison(own, None) == limited_by_poison(own, own) == own
    told = limited_by_poison(own, gpu)
    assert told["bit_identical"] is False
    assert told["not_promised"] == ["its poison: kernels chosen for speed"]
