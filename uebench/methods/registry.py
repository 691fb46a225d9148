"""Find methods by name: in the two folders, entry points, `--plugin` files and this session.

If a plug-in breaks at import, the error is recorded and all other methods still work. A name that
is already taken is refused, so that no method silently replaces another.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from ..common.errors import MethodError, UnknownNameError, UserError
from ..common.mixtures import shares_and_options
from ..common.names import MIXTURE
from ..common.options import validated
from ..common.spec import IMPORTED, PURIFIED, Spec, parse_spec, unknown
from ..common.text import distinct_titles
from .asked import Asked
from .base import Attack, Defense, Method, MethodInfo
from .code_files import GROUPS_OF_METHODS
from .faults import in_words, last_line
from .imported import imported_class
from .mixture import MixedPoison, Part
from .purified import purified_class
from .source import remember_code
from .victim import Victim

Kind = Literal["attack", "defense", "victim"]
M = TypeVar("M", bound=type[Method])
A = TypeVar("A", bound=type[Attack])
D = TypeVar("D", bound=type[Defense])
V = TypeVar("V", bound=type[Victim])
BASES: dict[Kind, type[Method]] = {"attack": Attack, "defense": Defense, "victim": Victim}
KINDS: tuple[Kind, ...] = tuple(BASES)
_WITH_ARTICLE: dict[str, str] = {
    "attack": "an attack",
    "defense": "a defense",
    "victim": "a victim",
}
_SUITE = Path(__file__).parents[1]


class BrokenPlugin(NamedTuple):
    """A plug-in that could not be imported: where it comes from, and why, with file and line."""

    origin: str
    error: str
    is_refused: bool = False
    """Whether the suite refused it, as for a name that is taken, and its own code did not fail."""


_methods: dict[Kind, dict[str, type[Method]]] = {kind: {} for kind in KINDS}
_broken: list[BrokenPlugin] = []
_files: list[Path] = []
_state = {"origin": "session", "package": "", "loaded": False}


def attack(name: str, *, title: str, source: str, family: str = "other") -> Callable[[A], A]:
    """Register an `Attack` under a name, with its title in tables and its source.

    `family` is the group of attacks that a wide table shows it in, such as `error-minimizing`.

    Raises:
        ValueError: the name is not snake_case or is taken.
    """
    return _registering("attack", name, title, source, family)


def defense(name: str, *, title: str, source: str, family: str = "other") -> Callable[[D], D]:
    """Register a `Defense` under a name, with its title in tables and its source.

    `family` is the group of defenses that a wide table shows it in, such as `augmentation`.

    Raises:
        ValueError: the name is not snake_case or is taken.
    """
    return _registering("defense", name, title, source, family)


def victim(name: str, *, title: str, source: str) -> Callable[[V], V]:
    """Register a `Victim` under a name, with its title in tables and its source.

    Raises:
        ValueError: the name is not snake_case or is taken.
    """
    return _registering("victim", name, title, source)


def name_is_taken(info: MethodInfo) -> str:
    """Return the refusal of a second method that has a method's name."""
    owner = "is built in" if info.origin == "built-in" else f"belongs to {info.origin}"
    return f"the {info.kind} {info.name} {owner}; choose another name"


def _registering(
    kind: Kind, name: str, title: str, source: str, family: str = "other"
) -> Callable[[M], M]:
    """Return the decorator of a class, which gets this name unless another method has it."""

    def register(cls: M) -> M:
        base = BASES[kind]
        if not issubclass(cls, base):
            raise UserError(f"{cls.__name__} is not a uebench.{base.__name__}; derive it from that")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
            raise UserError(f"{name!r} is not a method's name; use snake_case, such as my_attack")
        origin = str(_state["origin"])
        if cls.__module__.startswith(tuple(f"{group}." for group in GROUPS_OF_METHODS)):
            origin = "built-in"  # no matter who imports it first, it belongs to the suite
        taken = _methods[kind].get(name)
        if taken is not None and not (origin == taken.info.origin == "session"):
            raise UserError(name_is_taken(taken.info))
        package = "" if origin == "built-in" else str(_state["package"])
        cls.info = MethodInfo(kind, name, title, source, origin, family, package)
        _methods[kind][name] = cls
        return cls

    return register


def _refuse_incomplete(kind: Kind, cls: type[Method]) -> None:
    """Refuse a class without the function that does its work.

    Raises:
        UserError: an attack has no `perturb` of its own, or a victim no `train`.
    """
    required = {"attack": Attack.perturb, "victim": Victim.train}.get(kind)
    if required is not None and getattr(cls, required.__name__) is required:
        raise UserError(f"the {kind} {cls.__name__} has no `{required.__name__}`; write it")


@contextlib.contextmanager
def _loading(origin: str, module: str = "", package: str = "") -> Iterator[None]:
    """Register what the body imports under `origin`; record an error instead of raising it.

    Args:
        origin: as in `MethodInfo`.
        module: the name of the plug-in's module, whose code may configure the modules it imports.
        package: as in `MethodInfo`.
    """
    before = {kind: dict(classes) for kind, classes in _methods.items()}
    previous = dict(_state)
    _state.update(origin=origin, package=package)
    try:
        yield
        for kind, classes in _methods.items() if origin != "built-in" else ():
            for name in classes.keys() - before[kind].keys():
                _refuse_incomplete(kind, classes[name])
                remember_code(classes[name], module)
    except (Exception, SystemExit) as error:
        for kind, classes in before.items():
            _methods[kind] = classes
        frames = traceback.extract_tb(error.__traceback__)
        if isinstance(error, UserError):
            theirs = [f.filename for f in frames if not Path(f.filename).is_relative_to(_SUITE)]
            where = last_line(error, theirs)
            text = f"{error} ({where})" if where else str(error)
        else:  # a syntax error names its own line itself
            files = [] if isinstance(error, SyntaxError) else [frames[-1].filename]
            text = in_words(error, files)
        _broken.append(BrokenPlugin(origin, text, isinstance(error, UserError)))
    finally:
        _state.update(origin=previous["origin"], package=previous["package"])


def load() -> None:
    """Load the methods of the suite and of installed plug-ins, once.

    Raises:
        UserError: the suite itself is not installed.
    """
    if _state["loaded"]:
        return
    _state["loaded"] = True
    for package in GROUPS_OF_METHODS:
        try:
            folder = importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise UserError(
                f"{error.name} is not importable, so uebench is not installed; "
                "type `pip install -e .` in its folder"
            ) from None
        for module in pkgutil.iter_modules(folder.__path__):
            if not module.name.startswith("_"):
                with _loading("built-in"):
                    importlib.import_module(f"{package}.{module.name}")
    for group in GROUPS_OF_METHODS:
        for entry in importlib.metadata.entry_points(group=group):
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""
            with _loading(f"entry point {entry.name}", entry.module, package):
                entry.load()


def load_file(path: Path) -> None:
    """Load methods from a Python file (`--plugin FILE`).

    Nothing happens if the file was loaded before or belongs to an installed plug-in.

    Raises:
        UserError: there is no such file, it defines no method, or its name or class is refused.
        MethodError: it breaks at import.
    """
    load()
    path = path.resolve()
    if path in _files or path in map(Path.resolve, map(Path, _plugin_sources())):
        return
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UserError(f"--plugin {path}: {what}; give the path of a Python file")
    name = f"uebench_plugin_{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--plugin {path}: not a Python file; its name must end in .py")
    n_broken, before = len(_broken), _n_methods()
    with _loading(f"file {path.name}", name):
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    if len(_broken) > n_broken:
        sys.modules.pop(name, None)
        found = _broken.pop()
        if found.is_refused:
            raise UserError(f"--plugin {path}: {found.error}")
        raise MethodError(f"--plugin {path} breaks at import: {found.error}")
    if before == _n_methods():
        raise UserError(
            f"--plugin {path}: adds no method; mark a class with @uebench.attack, "
            "@uebench.defense or @uebench.victim"
        )
    _files.append(path)


def _n_methods() -> int:
    return sum(map(len, _methods.values()))


def plugin_line(error: BaseException) -> str:
    """Return the last line of a plug-in's file that led to the error, or an empty text."""
    return last_line(error, _plugin_sources())


def _plugin_sources() -> set[str]:
    """Return the files of all methods that are not the suite's own."""
    classes = (cls for known in _methods.values() for cls in known.values())
    modules = (sys.modules.get(c.__module__) for c in classes if c.info.origin != "built-in")
    return {str(file) for module in modules if (file := getattr(module, "__file__", None))}


def plugin_files() -> list[Path]:
    """Return the files that `load_file` has loaded, which worker processes must load too."""
    return list(_files)


def broken() -> list[BrokenPlugin]:
    """Return the plug-ins that could not be loaded."""
    load()
    return list(_broken)


def methods(kind: Kind) -> dict[str, type[Method]]:
    """Return the methods of a kind by name: the suite's first, each group in order of name."""
    load()
    classes = _methods[kind]
    return dict(sorted(classes.items(), key=lambda kv: (kv[1].info.origin != "built-in", kv[0])))


def find(kind: Kind, name: str) -> type[Method]:
    """Return the class of a method.

    Raises:
        UnknownNameError: no such method, with the nearest name and the plug-ins that are broken.
        UserError: the plug-in that has this name was refused, as for a name that is taken.
        MethodError: the plug-in that has this name breaks at import.
    """
    known = methods(kind)
    if name in known:
        return known[name]
    if kind == "attack" and name.startswith(IMPORTED):
        return imported_class(name)
    if kind == "attack" and name == MIXTURE:
        return MixedPoison
    if kind == "defense" and name.startswith(PURIFIED):
        return purified_class(name)
    for plugin in _broken:
        if plugin.origin == f"entry point {name}":
            if plugin.is_refused:
                raise UserError(f"{kind} {name} is refused: {plugin.error}")
            raise MethodError(f"{kind} {name} breaks at import: {plugin.error}")
    for other in KINDS:
        if name in _methods[other]:
            raise UnknownNameError(f"{name} is {_WITH_ARTICLE[other]}, not {_WITH_ARTICLE[kind]}")
    raise absent(kind, name, known)


def absent(
    kind: str, name: str, known: Iterable[str], *, spell_out: bool = True
) -> UnknownNameError:
    """Return the error for a name that is not registered.

    It states the nearest name, the plug-ins that are broken, and whether the current folder holds a
    package of that name that is not installed. The known names are written only on `spell_out`.
    """
    sentences = [str(unknown(kind, name, known, spell_out=spell_out))]
    if _broken:
        plugins = "; ".join(f"{b.origin} ({b.error})" for b in _broken)
        sentences.append(f"plug-ins that could not be loaded: {plugins}")
    file = Path(name) / f"uebench_{name}.py"
    if name.isidentifier() and file.is_file():
        sentences.append(
            f"{name}/ is here and not installed: type `pip install -e {name}`, or add "
            f"--plugin {file}"
        )
    return UnknownNameError("; ".join(sentences))


def build(kind: Kind, spec: str | Spec, overrides: Mapping[str, Any] | None = None) -> Any:
    """Return the checked method that a spec describes; `overrides` are options set elsewhere.

    Raises:
        UnknownNameError: no such method.
        UserError: bad options, all of them at once, each with its range or nearest name.
    """
    name, options = parse_spec(spec) if isinstance(spec, str) else spec
    cls, given = find(kind, name), {**(overrides or {}), **options}
    if cls is MixedPoison:
        parts = shares_and_options(given).items()
        return MixedPoison(
            parts=tuple(Part(build(kind, Spec(name, own)), share) for name, (share, own) in parts)
        )
    return validated(cls, given, owner=name)


def build_attack(spec: str, overrides: Mapping[str, Any] | None = None) -> Asked[Attack]:
    """Return the attack that a spec asks for; see `build`."""
    return Asked(build("attack", spec, overrides))


def build_defense(spec: str, overrides: Mapping[str, Any] | None = None) -> Asked[Defense]:
    """Return the defense that a spec asks for; see `build`."""
    return Asked(build("defense", spec, overrides))


def build_victim(spec: str, overrides: Mapping[str, Any] | None = None) -> Asked[Victim]:
    """Return the victim that a spec asks for; see `build`."""
    return Asked(build("victim", spec, overrides))


def known_titles() -> dict[str, str]:
    """Return what tables call each registered method, by its name."""
    known = {name: cls.info.title for kind in KINDS for name, cls in methods(kind).items()}
    return distinct_titles({MIXTURE: MixedPoison.info.title, **known})
