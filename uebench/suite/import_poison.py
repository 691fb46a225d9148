"""The Python API for a poison that somebody else released: `import_poison` keeps it."""

from __future__ import annotations

from pathlib import Path

from ..common.spec import printable
from ..data import Dataset, load_dataset
from ..data.foreign import Reading, read_poison
from ..data.foreign.interpret import Kind, Rounding, Scale
from ..data.poison import Poison, PoisonError, tensors_sha256
from ..data.poison_files import audit_poison
from ..methods.imported import check_free, checked_name, imported_recipe, remember
from ..store.arrays import gathered
from ..store.store import Store, key_of


def import_poison(
    path: Path | str,
    dataset: Dataset | str,
    name: str,
    *,
    kind: Kind = "auto",
    scale: Scale = "auto",
    rounding: Rounding = "round",
    key: str | None = None,
    replace: bool = False,
    store: Store | None = None,
) -> Poison:
    """Return the poison in a file of somebody else's and keep it as the attack `imported:NAME`.

    Nothing in the file is run. Its `meta` says how it was read and what was measured. The labels
    stay those of the clean set; training images that it does not cover stay clean.

    Args:
        path: a folder or zip of `<index>.png`, .npy, .npz, .safetensors, .pt, a pickle of arrays.
        dataset: the data set that it was made from, or its name.
        name: what it is called from now on.
        kind: poisoned `images`, or `deltas`, which are added to the clean ones.
        scale: `unit` where 1 is white, `levels` where 255 is.
        rounding: of levels that are not whole: `round`, or `truncate` as a cast to uint8 does.
        key: the array's name, where the file has several.
        replace: give a name another content than it has.
        store: where it is kept; by default `$UEBENCH_HOME` or the platform's cache folder.

    Raises:
        ValueError: the file cannot be read or trusted, does not fit the data set, could be read in
            two ways, or changes nothing; or the name is taken.
    """
    called = checked_name(name)
    loaded = load_dataset(dataset) if isinstance(dataset, str) else dataset
    found, read = read_poison(Path(path), loaded, Reading(kind, scale, rounding, key))
    audit = audit_poison(found, loaded)
    if not audit["linf_max"]:
        raise PoisonError(f"{path} changes no image of {loaded.name}; is it the clean data set?")
    order = found.index.argsort()
    index = found.index[order]
    images = gathered(found.images, order, found.images.device)
    poison = Poison(images, loaded.train.labels[index], index)
    sha256 = tensors_sha256(poison)
    recipe = imported_recipe(loaded.fingerprint, sha256)
    told = {
        **read,
        **audit,
        "sha256": sha256,
        "file": printable(Path(path).name),
        "dataset": loaded.name,
    }
    budget = {"norm": "linf", "eps": audit["linf_max"] / 255}
    meta = {**told, "recipe": recipe, "budget": budget, "author_record": found.meta}
    store = store or Store()
    check_free(store, called, loaded.fingerprint, sha256, replace)
    tensors = {"images": poison.images, "labels": poison.labels, "index": poison.index}
    store.get_or_make("poison", key_of(recipe), lambda: (tensors, meta))
    remember(store, called, loaded.fingerprint, told, replace)
    return Poison(poison.images, poison.labels, poison.index, meta)
