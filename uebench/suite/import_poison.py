"""The Python API that registers a released poison as an attack: `import_poison`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..common.spec import printable
from ..data import Dataset
from ..data.foreign import Reading, read_poison
from ..data.foreign.interpret import ContentKind, Rounding, Scale
from ..data.load import as_dataset
from ..data.poison import Poison, PoisonError, tensors_sha256
from ..data.poison_files import audit_poison
from ..methods.imported import check_free, imported_recipe, poison_name, remember
from ..store.arrays import gathered
from ..store.store import Store, key_of


def import_poison(
    path: Path | str,
    dataset: Dataset | str,
    name: str,
    *,
    kind: ContentKind = "auto",
    scale: Scale = "auto",
    rounding: Rounding = "round",
    key: str | None = None,
    replace: bool = False,
    store: Store | None = None,
) -> Poison:
    """Return the poison in a released file and register it as the attack `imported:NAME`.

    Nothing in the file is run. The `meta` of the poison says how the file was read and what was
    measured. Labels are those of the clean set; training images that it does not cover stay clean.

    Args:
        path: a folder or zip of `<index>.png`, .npy, .npz, .safetensors, .pt, a pickle of arrays.
        dataset: the clean data set that it was made from, or its name.
        name: its name from now on, without `imported:`.
        kind: whether the file holds poisoned `images`, or `deltas` to add to the clean ones.
        scale: `unit` if white is 1, `levels` if white is 255.
        rounding: how fractional levels become 8-bit: `round`, or `truncate` as a cast to uint8.
        key: the name of the array, if the file has several.
        replace: replace the images that the name already has on this data set.
        store: where it is stored; by default `$UEBENCH_HOME` or the platform's cache folder.

    Raises:
        ValueError: the file cannot be read or trusted, does not fit the data set, could be read in
            two ways, or changes nothing; or the name is taken.
    """
    name = poison_name(name)
    loaded = as_dataset(dataset)
    released, how_read, audit = read_usable(path, loaded, Reading(kind, scale, rounding, key))
    if not audit["linf_max"]:
        raise PoisonError(f"{path} changes no image of {loaded.name}; is it the clean data set?")
    order = released.index.argsort()
    index = released.index[order]
    images = gathered(released.images, order, released.images.device)
    poison = Poison(images, loaded.train.labels[index], index)
    sha256 = tensors_sha256(poison)
    recipe = imported_recipe(loaded.fingerprint, sha256)
    record = {
        **how_read,
        **audit,
        "sha256": sha256,
        "file": printable(Path(path).name),
        "dataset": loaded.name,
    }
    budget = {"norm": "linf", "eps": audit["linf_max"] / 255}
    meta = {**record, "recipe": recipe, "budget": budget, "author_record": released.meta}
    store = store or Store()
    check_free(store, name, loaded.fingerprint, sha256, replace)
    tensors = {"images": poison.images, "labels": poison.labels, "index": poison.index}
    store.get_or_make("poison", key_of(recipe), lambda: (tensors, meta))
    remember(store, name, loaded.fingerprint, record, replace)
    return Poison(poison.images, poison.labels, poison.index, meta, loaded)


def read_usable(
    path: Path | str, dataset: Dataset, reading: Reading
) -> tuple[Poison, dict[str, Any], dict[str, Any]]:
    """Return the images in somebody's file, how it was read, and what was measured of them.

    Raises:
        PoisonError: the file cannot be read or trusted, does not fit the data set, or has its
            labels in another order.
    """
    images, how_read = read_poison(Path(path), dataset, reading)
    audit = audit_poison(images, dataset, how_read["labels_from"] == "the file")
    if not audit["usable"]:
        raise PoisonError(f"{path} is not usable: {audit['why_not_usable']}")
    return images, how_read, audit
