"""Each promise fails for a method that breaks it, and says how to mend it."""

from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import Field

from uebench import Attack, Defense, attack, defense
from uebench.testing import UnmetError, attack_conformance, conform
from uebench.testing.conformance import outcome_of, promised
from uebench.testing.costs import _peak_bytes, _status
from uebench.testing.data import case
from uebench.testing.promises import PROMISES
from uebench.testing.subject import Subject


def signs(data: Any, run: Any) -> torch.Tensor:
    shape = data.images.shape
    return 2.0 * torch.randint(0, 2, shape, generator=run.rng, device=run.device) - 1


class Sound(Attack):
    """Random signs."""

    norm: Literal["linf"] = "linf"
    """The norm that the budget is measured in."""

    def perturb(self, data: Any, run: Any) -> Any:
        return self.eps * signs(data, run)


@pytest.fixture(autouse=True)
def _registered() -> None:
    attack("sound", title="Sound", source="a test")(Sound)


def failing(kind: Any, cls: Any) -> dict[str, str]:
    """Return what fails, by promise, with how to mend it."""
    told: dict[str, str] = {}
    for outcome in conform(kind, cls, costly=False):
        if outcome.status == "failed":
            assert outcome.remedy
            told.setdefault(outcome.promise, f"{outcome.measured} / {outcome.remedy}")
    return told


def named(cls: Any, **info: str) -> Any:
    """Register a class as an attack or a defense of its own name."""
    told = {"title": "Bad", "source": "a test"} | info
    mark = attack if issubclass(cls, Attack) else defense
    return mark(cls.__name__.lower(), **told)(cls)


def test_a_sound_attack_keeps_all_promises() -> None:
    assert failing("attack", Sound) == {}


def test_an_attack_over_its_budget() -> None:
    class Loud(Sound):
        """Twice the budget."""

        def perturb(self, data: Any, run: Any) -> Any:
            return 2 * self.eps * signs(data, run)

    told = failing("attack", named(Loud))
    assert "exceeds its linf budget" in told["budget"]
    assert {"budget", "norms", "randomness", "precision", "gpu"} == set(told)


def test_an_audit_that_is_circumvented() -> None:
    class Sly(Sound):
        """Its own `craft`."""

        def craft(self, data: Any, run: Any) -> Any:  # type: ignore[misc]
            made = super().craft(data, run)
            return type(made)(255 - made.images, 1 - made.labels, made.index)

    told = failing("attack", named(Sly))
    assert "`craft` is overridden" in told["interface"]
    assert "labels were changed" in told["budget"]


def test_a_norm_that_is_accepted_but_not_kept() -> None:
    class Both(Sound):
        """It says l2 and means linf."""

        norm: Literal["linf", "l2"] = "linf"  # type: ignore[assignment]
        """The norm."""

    told = failing("attack", named(Both))
    assert list(told) == ["norms"]
    assert "l2 budget" in told["norms"]
    assert "Literal['linf']" in told["norms"]


@pytest.mark.parametrize("source", ["torch", "numpy", "clock", "nothing"])
def test_randomness_from_elsewhere(source: str) -> None:
    calls = []

    class Loose(Sound):
        """Draws from where it should not."""

        def perturb(self, data: Any, run: Any) -> Any:
            calls.append(source)
            shape = data.images.shape
            draws = {
                "torch": lambda: torch.rand(shape),
                "numpy": lambda: torch.from_numpy(np.random.rand(*shape)),  # noqa: NPY002
                "clock": lambda: torch.full(shape, 0.5 + 0.1 * (len(calls) % 3)),
                "nothing": lambda: torch.ones(shape),
            }
            return self.eps * draws[source]()

    told = failing("attack", named(Loose))
    expected = {"clock": "two different poisons", "nothing": "another seed gave the same"}
    assert list(told) == ["randomness"]
    assert expected.get(source, "a global generator") in told["randomness"]


NOISE: dict[str, tuple[Any, str]] = {
    "a draw on the CPU": (
        lambda x, run: torch.randn(x.shape, generator=run.rng),
        "the result is on the CPU, the generator not",
    ),
    "a tensor on the CPU": (
        lambda x, run: x + torch.ones(x.shape),
        "one tensor is on the GPU, another on the CPU",
    ),
    "an array": (lambda x, run: torch.from_numpy(np.sign(x.numpy())), "use Tensor.cpu() first"),
}


@pytest.mark.parametrize("name", NOISE)
def test_what_would_break_on_a_gpu(name: str) -> None:
    noise, told = NOISE[name]

    class Homely(Sound):
        """Noise that stays on the CPU."""

        def perturb(self, data: Any, run: Any) -> Any:
            return self.eps * noise(data.pixels(), run).clamp(-1, 1).sign()

    found = failing("attack", named(Homely))
    assert told in found["gpu"]
    assert "make tensors with device=run.device" in found["gpu"]
    assert set(found) <= {"gpu", "randomness"}


def test_a_size_that_is_taken_for_granted() -> None:
    class Fixed(Sound):
        """Knows 16 px only."""

        def perturb(self, data: Any, run: Any) -> Any:
            ones = torch.ones(len(data), 3, 16, 16, device=run.device)
            return self.eps * ones * signs(data, run)

    outcomes = [o for o in conform("attack", named(Fixed), costly=False) if o.status == "failed"]
    assert {o.case for o in outcomes} == {"odd and oblong", "small", "64 px", "grey"}
    told = {o.case: o.measured for o in outcomes}
    assert "perturb returned float32 [8, 3, 16, 16]" in told.pop("grey")
    assert all("RuntimeError" in t and "test_conformance.py, line" in t for t in told.values())


def test_clean_images_that_are_changed() -> None:
    class Greedy(Sound):
        """Works in place."""

        def perturb(self, data: Any, run: Any) -> Any:
            data.images[0] = 0
            return self.eps * signs(data, run)

    assert "were changed" in failing("attack", named(Greedy))["budget"]


def test_documentation() -> None:
    class Silent(Sound):
        strength: Annotated[float, Field(ge=0, le=1)] = 1.0

    told = failing("attack", named(Silent))
    assert "no docstring" in told["documentation"]
    Silent.__doc__ = "Signs."
    assert "option strength is not described" in failing("attack", Silent)["documentation"]
    assert "source is 'TODO'" in failing("attack", named(Silent, source="TODO"))["documentation"]


@pytest.mark.parametrize(
    ("kind", "default", "told"),
    [
        (float, 1.0, "a lower bound and an upper bound"),
        (Annotated[int, Field(ge=1)], 1, "without an upper bound"),
        (Annotated[float, Field(gt=0, le=1)] | Literal["auto"], 1.0, None),
        (Annotated[int, Field(le=5)] | Literal["auto"], 1, "without a lower bound"),
        (Annotated[float, Field(gt=0, le=1)], 8.0, "the default of strength is not accepted"),
    ],
)
def test_options_have_ranges(kind: Any, default: Any, told: str | None) -> None:
    class Ranged(Sound):
        """Signs."""

        strength: kind = default
        """Its strength."""

    found = failing("attack", named(Ranged)).get("options")
    assert found is None if told is None else told in str(found)


def test_what_stays_open() -> None:
    class Vague(Sound):
        """Signs."""

        side: Annotated[int, Field(ge=1, le=9)] | Literal["auto"] = "auto"
        """Its side."""

    assert "leaves side=auto open" in failing("attack", named(Vague))["resolving"]


class Plain(Defense):
    """Cross-entropy."""


LOSSES: dict[str, tuple[Any, str]] = {
    "detached": (
        lambda m, x, y: F.cross_entropy(m(x), y).detach(),
        "without gradient; one number",
    ),
    "of each image": (
        lambda m, x, y: F.cross_entropy(m(x), y, reduction="none"),
        "loss returned float32 [12]",
    ),
    "infinite": (lambda m, x, y: F.cross_entropy(m(x), y) / 0, "the loss is inf"),
    "of nothing": (lambda m, x, y: F.cross_entropy(0 * m(x), y), "gradients are zero"),
    "in place": (lambda m, x, y: F.cross_entropy(m(x.mul_(0.5)), y), "changed in place"),
    "in eval mode": (lambda m, x, y: F.cross_entropy(m.eval()(x), y), "train mode"),
    "of a draw": (lambda m, x, y: F.cross_entropy(m(x), y) * torch.rand(()), ""),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_breaks_a_promise(name: str) -> None:
    body, told = LOSSES[name]

    class Wrong(Plain):
        """A loss that is wrong."""

        def loss(self, model: Any, images: Any, labels: Any, run: Any) -> Any:
            return body(model, images, labels)

    found = failing("defense", named(Wrong))
    assert told in found.get("loss", "")
    assert name != "of a draw" or "global generator" in found["randomness"]


def test_a_sound_defense_and_one_that_prepares_wrongly() -> None:
    assert failing("defense", named(Plain)) == {}

    class Kept(Plain):
        """Draws, and keeps what it drew for all seeds."""

        keep_prepared = True

        def prepare(self, data: Any, run: Any) -> Any:
            noise = torch.randint(0, 2, data.images.shape, generator=run.rng, dtype=torch.uint8)
            return data.with_images(data.images + noise)

    assert "two seeds are prepared differently" in failing("defense", named(Kept))["keeping"]

    class Hasty(Plain):
        """Trains for longer than it is asked to."""

        def adjust(self, protocol: Any) -> Any:
            return protocol.model_copy(update={"epochs": 99})

    assert "changes epochs" in failing("defense", named(Hasty))["adjusting"]


def test_images_that_a_method_changes_spoil_no_later_test() -> None:
    before = case("64 px").train.images.clone()
    case("64 px").train.images.zero_()
    assert torch.equal(case("64 px").train.images, before)


def test_memory_that_grows_too_fast() -> None:
    class Hoarder(Sound):
        """Keeps twenty copies of all images."""

        def perturb(self, data: Any, run: Any) -> Any:
            copies = torch.ones(20, *data.images.shape)
            return self.eps * copies[0] * signs(data, run)

    try:
        _status("VmHWM")
    except (OSError, LookupError):
        pytest.skip("this system does not tell the peak of a process")
    (each,) = [p for p in PROMISES if p.name == "memory"]
    outcome = outcome_of(Subject.of("attack", named(Hoarder)), each, "3,000 images")
    assert outcome.status == "failed"
    assert "bytes for each pixel value" in outcome.measured


def test_memory_that_earlier_work_has_freed_hides_nothing() -> None:
    size, held = 2**20, []

    def work() -> None:
        held.extend(bytearray(b"x" * size) for _ in range(64))

    earlier = [bytearray(b"x" * size) for _ in range(128)]
    del earlier[:-1]  # the last one keeps the heap from shrinking
    peak = _peak_bytes(work)
    if peak is None:
        pytest.skip("this system does not tell the peak of a process")
    assert peak > 48 * size


def test_the_decorator_makes_one_named_test_per_promise_and_case() -> None:
    mark = attack_conformance("sound", Sound).mark
    names = [mark.kwargs["ids"](test) for test in mark.args[1]]
    assert len(names) == 2 * len(promised("attack", costly=False)) == 2 * len(set(names))
    assert "sound-budget-64 px" in names
    assert not any("224" in name or "speed" in name for name in names)
    with pytest.raises(ValueError, match="needs a method"):
        attack_conformance()


def test_a_failing_check_says_how_to_fix_it() -> None:
    class Flat(Sound):
        """Changes nothing."""

        def perturb(self, data: Any, run: Any) -> Any:
            return torch.zeros(data.images.shape)

    checks = attack_conformance(named(Flat)).mark.args[1]
    (check,) = [c for c in checks if str(c) == "flat-budget-small"]
    with pytest.raises(UnmetError, match=r"most images are unchanged.*To fix it: check that"):
        check()
