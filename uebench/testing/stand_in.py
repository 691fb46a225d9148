"""A GPU for tests: a real one, or a stand-in that refuses on any machine what a GPU would refuse.

Most code that only breaks on a GPU has left a tensor, a generator or a NumPy array on the CPU. The
stand-in is a second device whose tensors are separate from the CPU's but computed by the CPU. An
operation that mixes the two raises, as it does on a GPU; any other returns the CPU's numbers.
torch's own fake tensors would find such mistakes too, but they hold no numbers, so a method that
looks at one cannot run.

torch sees it as the device `meta`, the only device besides the CPU that needs no hardware and
supports gradients. bf16 is not simulated, because autocast ignores tensors of this device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

STAND_IN = "meta"
_MIXING = {"copy_", "index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Operations that allow CPU tensors as later arguments; the first determines the device."""
_MIXED = "{}: one tensor is on the GPU, another on the CPU"


class _Apart(Tensor):
    """A tensor on the stand-in; `held` is the CPU tensor that has its numbers."""

    held: Tensor
    is_meta = False  # unlike other tensors of that device, it has numbers

    @staticmethod
    def __new__(cls, held: Tensor) -> _Apart:
        tensor: _Apart = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(STAND_IN),
        )
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func}: a tensor outlived the GPU's stand-in; move it to the CPU")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"on the GPU's stand-in: {self.held}"

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Raise the error that a tensor on a GPU raises."""
        raise TypeError("a tensor on the GPU is no NumPy array; use Tensor.cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        """Return the numbers as lists, which a tensor on a GPU does too."""
        return self.held.tolist()

    @property
    def data(self) -> Tensor:
        """The same numbers, detached from the graph."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, _Apart):
            raise RuntimeError(_MIXED.format("data"))
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def new_tensor(self, data: Any, **options: Any) -> Tensor:  # type: ignore[override]
        """Return data as a tensor on the same device."""
        given: dict[str, Any] = {"dtype": self.dtype, "device": self.device} | options
        return torch.tensor(data, **given)


class _Dispatch(TorchDispatchMode):
    """Compute every operation on the CPU after checking that its tensors share one device."""

    def __init__(self, generators: Container[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generators = generators

    def _apart(self, generator: Any) -> bool:
        """Return whether a generator is on the stand-in, whichever Python object wraps it."""
        return generator._cdata in self.generators

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        apart = [isinstance(tensor, _Apart) for tensor in tensors]
        if (device := kwargs.get("device")) is not None:
            on_gpu = torch.device(device).type == STAND_IN
            kwargs["device"] = torch.device("cpu")
        elif name in _MIXING:
            on_gpu = apart[0]
            if not on_gpu and any(apart) and name != "copy_":
                raise RuntimeError(_MIXED.format(name))
        else:
            on_gpu = any(apart)
            on_cpu = [t for t, is_apart in zip(tensors, apart, strict=True) if not is_apart]
            if on_gpu and any(t.dim() for t in on_cpu):  # a single number may come from the CPU
                raise RuntimeError(_MIXED.format(name))
        for leaf in leaves:
            if isinstance(leaf, torch._C.Generator) and self._apart(leaf) != on_gpu:
                where = "GPU, the generator on the CPU" if on_gpu else "CPU, the generator not"
                raise RuntimeError(f"{name}: the result is on the {where}")
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        for tensor in tensors:
            if isinstance(tensor, _Apart) and tensor.shape != tensor.held.shape:
                raise NotImplementedError(f"{name}: a stand-in changes no shape in place")
        if not on_gpu:
            return result
        result = tree_map(lambda leaf: _Apart(leaf) if isinstance(leaf, Tensor) else leaf, result)
        return return_and_correct_aliasing(func, args, kwargs, result) if any(apart) else result


def _held(leaf: Any) -> Any:
    """Return the CPU tensor in place of a tensor on the stand-in."""
    return leaf.held if isinstance(leaf, _Apart) else leaf


@contextlib.contextmanager
def gpu_stand_in() -> Iterator[str]:
    """Yield the name of a device that stands in for a GPU while the context lasts.

    Meanwhile `torch.Generator`, `torch.tensor`, `torch.as_tensor`, `torch.autocast` and
    `torch.inference_mode` are replaced by functions that accept it; names imported from torch
    earlier are not. It may only be used by one thread. `torch.cuda` is left as it is.
    """
    generator: Any = torch.Generator
    autocast: Any = torch.autocast
    generators: dict[int, Any] = {}  # keeps them alive, so that no address is used again

    class Generator(generator):  # type: ignore[misc]
        def __new__(cls, device: torch.device | str = "cpu") -> Any:
            on_gpu = torch.device(device).type == STAND_IN
            created = generator.__new__(cls, "cpu" if on_gpu else device)
            if on_gpu:
                generators[created._cdata] = created
            return created

        def __init__(self, device: torch.device | str = "cpu") -> None:
            """Do nothing, because `__new__` has used the device."""

        @property
        def device(self) -> torch.device:
            own: torch.device = super().device
            return torch.device(STAND_IN) if self._cdata in generators else own

    class Autocast(autocast):  # type: ignore[misc]
        def __init__(self, device_type: str, *args: Any, **options: Any) -> None:
            super().__init__("cpu" if device_type == STAND_IN else device_type, *args, **options)

    def moved(make: Any) -> Any:
        def make_on(data: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
            tensor: Tensor = make(data, dtype=dtype, **options)
            return tensor if device is None else tensor.to(device)

        return make_on

    def without_gradient(mode: bool = True) -> Any:
        return torch.set_grad_enabled(not mode and torch.is_grad_enabled())

    replaced = {
        "Generator": Generator,
        "autocast": Autocast,
        "tensor": moved(torch.tensor),
        "as_tensor": moved(torch.as_tensor),
        "inference_mode": without_gradient,  # a tensor of that mode cannot be wrapped
    }
    before = {name: getattr(torch, name) for name in replaced}
    try:
        for name, value in replaced.items():
            setattr(torch, name, value)
        with _Dispatch(generators):
            yield STAND_IN
    finally:
        for name, value in before.items():
            setattr(torch, name, value)


@contextlib.contextmanager
def some_gpu() -> Iterator[tuple[str, str]]:
    """Yield the first GPU and its name; without a GPU, a stand-in and a note that says so."""
    if torch.cuda.is_available():
        yield "cuda", torch.cuda.get_device_name()
    else:
        with gpu_stand_in() as device:
            yield device, "on a stand-in, since there is no GPU here"
