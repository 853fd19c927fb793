"""Vectors of bytes and of whole numbers in compiled kernels, written as LLVM has them: what loops do not become."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

BYTE, SHORT, INT, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))


class Row:
    """An argument of an intrinsic: a number, or a contiguous row that is read and written by vectors at any place."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        self.context, self.builder, self.kind, self.value = context, builder, kind, value

    def load(self, index: Any, lane: Any = None, count: int = 0) -> Any:
        """A number, or a vector of `count` lanes."""
        loaded = self.builder.load(self._pointer(index, vector(lane, count) if count else None))
        loaded.align = 8 if not count else 1
        return loaded

    def store(self, index: Any, value: Any) -> None:
        """A vector, from that place on."""
        self.builder.store(value, self._pointer(index, value.type)).align = 1

    def _pointer(self, index: Any, kind: Any) -> Any:
        array = self.context.make_array(self.kind)(self.context, self.builder, self.value)
        place = self.builder.gep(array.data, [index])
        return self.builder.bitcast(place, kind.as_pointer()) if kind else place


def rows_of(context: Any, builder: Any, kinds: Any, values: Any) -> list[Row]:
    """The arguments of an intrinsic, as its `generate` is given them."""
    return [Row(context, builder, kind, value) for kind, value in zip(kinds, values, strict=True)]


def times(builder: Any, value: Any, factor: int) -> Any:
    return builder.mul(value, value.type(factor))


def vector(lane: Any, count: int) -> Any:
    return ir.VectorType(lane, count)


def lanes(*numbers: int) -> Any:
    return ir.Constant(vector(INT, len(numbers)), numbers)


def all_of(kind: Any, number: int) -> Any:
    """A vector of that kind, the same number in each lane."""
    return ir.Constant(kind, [number] * kind.count)


def between(builder: Any, value: Any, least: int, most: int) -> Any:
    """Each lane cut to that range."""
    for sign, bound in (("<", all_of(value.type, least)), (">", all_of(value.type, most))):
        value = builder.select(builder.icmp_signed(sign, value, bound), bound, value)
    return value
