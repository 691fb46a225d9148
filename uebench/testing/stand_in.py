"""A GPU to test on: a true one, or a stand-in that finds on any machine what a GPU would refuse.

Most of what breaks on a GPU only is a tensor, a generator or a NumPy array that stayed on the CPU.
The stand-in is a second device whose tensors lie apart and are computed by the CPU all the same:
an operation that mixes the two raises as it does on a GPU, any other gives the CPU's numbers.
torch's own fake tensors find this too, but they hold no numbers, so no method that looks at one
gets through.

To torch it is the device `meta`, the only one besides the CPU that needs no hardware and has
gradients. bf16 is not stood in for: autocast leaves its tensors alone.
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
"""Operations whose further tensors may lie on the CPU; the first one's device is the result's."""
_MIXED = "{}: one tensor is on the GPU, another on the CPU"


class _Apart(Tensor):
    """A tensor on the stand-in; `held` is the CPU's tensor with its numbers."""

    held: Tensor
    is_meta = False  # unlike tensors of that device it has numbers

    @staticmethod
    def __new__(cls, held: Tensor) -> _Apart:
        made: _Apart = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(STAND_IN),
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func}: a tensor outlived the GPU's stand-in; move it to the CPU")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"on the GPU's stand-in: {self.held}"

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Raise the error that a GPU's tensor raises."""
        raise TypeError("a tensor on the GPU is no NumPy array; use Tensor.cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        """Return the numbers as lists, which a GPU's tensor gives too."""
        return self.held.tolist()

    @property
    def data(self) -> Tensor:
        """The same numbers without their history."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, _Apart):
            raise RuntimeError(_MIXED.format("data"))
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def new_tensor(self, data: Any, **options: Any) -> Tensor:  # type: ignore[override]
        """Return data as a tensor beside this one."""
        given: dict[str, Any] = {"dtype": self.dtype, "device": self.device} | options
        return torch.tensor(data, **given)


class _Dispatch(TorchDispatchMode):
    """Computes every operation on the CPU, having seen that its tensors lie on one device."""

    def __init__(self, generators: Container[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generators = generators

    def _apart(self, generator: Any) -> bool:
        """Return whether a generator is the stand-in's, whatever object it comes as."""
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
            there = torch.device(device).type == STAND_IN
            kwargs["device"] = torch.device("cpu")
        elif name in _MIXING:
            there = apart[0]
            if not there and any(apart) and name != "copy_":
                raise RuntimeError(_MIXED.format(name))
        else:
            there = any(apart)
            on_cpu = [t for t, is_apart in zip(tensors, apart, strict=True) if not is_apart]
            if there and any(t.dim() for t in on_cpu):  # a lone number may come from the CPU
                raise RuntimeError(_MIXED.format(name))
        for leaf in leaves:
            if isinstance(leaf, torch._C.Generator) and self._apart(leaf) != there:
                where = "GPU, the generator on the CPU" if there else "CPU, the generator not"
                raise RuntimeError(f"{name}: the result is on the {where}")
        found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        for tensor in tensors:
            if isinstance(tensor, _Apart) and tensor.shape != tensor.held.shape:
                raise NotImplementedError(f"{name}: a stand-in changes no shape in place")
        if not there:
            return found
        found = tree_map(lambda leaf: _Apart(leaf) if isinstance(leaf, Tensor) else leaf, found)
        return return_and_correct_aliasing(func, args, kwargs, found) if any(apart) else found


def _held(leaf: Any) -> Any:
    """Return what the CPU has in place of an argument."""
    return leaf.held if isinstance(leaf, _Apart) else leaf


@contextlib.contextmanager
def gpu_stand_in() -> Iterator[str]:
    """Yield the name of a device that stands in for a GPU while the context lasts.

    `torch.Generator`, `torch.tensor`, `torch.as_tensor`, `torch.autocast` and
    `torch.inference_mode` know it meanwhile; names imported from torch before do not. It is for
    one thread. `torch.cuda` is left as it is.
    """
    generator: Any = torch.Generator
    autocast: Any = torch.autocast
    theirs: dict[int, Any] = {}  # kept, so that no later one takes the place of one

    class Generator(generator):  # type: ignore[misc]
        def __new__(cls, device: torch.device | str = "cpu") -> Any:
            there = torch.device(device).type == STAND_IN
            made = generator.__new__(cls, "cpu" if there else device)
            if there:
                theirs[made._cdata] = made
            return made

        def __init__(self, device: torch.device | str = "cpu") -> None:
            """Do nothing: `__new__` took the device."""

        @property
        def device(self) -> torch.device:
            own: torch.device = super().device
            return torch.device(STAND_IN) if self._cdata in theirs else own

    class Autocast(autocast):  # type: ignore[misc]
        def __init__(self, device_type: str, *args: Any, **options: Any) -> None:
            super().__init__("cpu" if device_type == STAND_IN else device_type, *args, **options)

    def moved(make: Any) -> Any:
        def made(data: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
            found: Tensor = make(data, dtype=dtype, **options)
            return found if device is None else found.to(device)

        return made

    def without_gradient(mode: bool = True) -> Any:
        return torch.set_grad_enabled(not mode and torch.is_grad_enabled())

    replaced = {
        "Generator": Generator,
        "autocast": Autocast,
        "tensor": moved(torch.tensor),
        "as_tensor": moved(torch.as_tensor),
        "inference_mode": without_gradient,  # no tensor of that mode can be wrapped
    }
    before = {name: getattr(torch, name) for name in replaced}
    try:
        for name, value in replaced.items():
            setattr(torch, name, value)
        with _Dispatch(theirs):
            yield STAND_IN
    finally:
        for name, value in before.items():
            setattr(torch, name, value)


@contextlib.contextmanager
def some_gpu() -> Iterator[tuple[str, str]]:
    """Yield the first GPU and its name; where there is none, a stand-in and a word on that."""
    if torch.cuda.is_available():
        yield "cuda", torch.cuda.get_device_name()
    else:
        with gpu_stand_in() as device:
            yield device, "on a stand-in, since there is no GPU here"
