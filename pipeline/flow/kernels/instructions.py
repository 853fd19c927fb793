"""What the kernels need and numba does not offer: reads and writes of planes known to be different, fused multiply-add.

A loop over many planes becomes vector code only where the compiler knows, or tests at run time, that what it writes is
not read under another name. Each access through `peek` and `poke` names its plane by a constant: accesses that name
different planes never meet (LLVM's alias scopes), so there is nothing left to test. The caller sees to it that this is
true.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

PLANES = 8  # the constants are 0 to 7


def _mark(builder: Any, access: Any, plane: int) -> None:
    """Say of a load or store that it belongs to `plane` and to no other one."""
    add = builder.module.add_metadata
    domain = add(["costream planes"])
    scopes = [add([f"costream plane {number}", domain]) for number in range(PLANES)]
    access.set_metadata("alias.scope", add([scopes[plane]]))
    access.set_metadata("noalias", add([scope for number, scope in enumerate(scopes) if number != plane]))


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


@intrinsic(prefer_literal=True)
def peek(typingctx, row, index, plane):
    """row[index] of a contiguous one-dimensional float32 array; plane: a constant, see above."""
    if not isinstance(plane, types.IntegerLiteral):
        return None

    def generate(context, builder, signature, arguments):
        value = builder.load(_place(context, builder, signature.args[0], *arguments[:2]))
        value.align = 4
        _mark(builder, value, plane.literal_value)
        return value

    return types.float32(row, types.intp, plane), generate


@intrinsic(prefer_literal=True)
def poke(typingctx, row, index, value, plane):
    """row[index] = value, in a contiguous one-dimensional float32 array; plane: a constant, see above."""
    if not isinstance(plane, types.IntegerLiteral):
        return None

    def generate(context, builder, signature, arguments):
        array, index, value, _ = arguments
        access = builder.store(value, _place(context, builder, signature.args[0], array, index))
        access.align = 4
        _mark(builder, access, plane.literal_value)
        return context.get_dummy_value()

    return types.none(row, types.intp, types.float32, plane), generate


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c in float32 with one rounding."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def weighted_taps(typingctx, planes, offset, stride, across, down, at, step):
    """4 x 4 taps of three interleaved planes, weighted: a tuple of three floats.

    planes: flat float32, four floats a pixel; offset: index of the top left tap; stride: floats a row. across, down:
    flat float32; the weights of tap k lie at [at + k * step]. Each row is summed from left to right, then the rows from
    top to bottom, by fused multiply-add: the order of OpenCV 5's remap.
    """

    def generate(context, builder, signature, arguments):
        planes, offset, stride, across, down, at, step = arguments
        i32, four = ir.IntType(32), ir.VectorType(ir.FloatType(), 4)

        def weight(kind: Any, array: Any, tap: int) -> Any:
            index = builder.add(at, builder.mul(step, ir.Constant(step.type, tap)))
            scalar = builder.load(_place(context, builder, kind, array, index))
            _mark(builder, scalar, 0)
            lane = builder.insert_element(ir.Constant(four, ir.Undefined), scalar, ir.Constant(i32, 0))
            return builder.shuffle_vector(
                lane, ir.Constant(four, ir.Undefined), ir.Constant(ir.VectorType(i32, 4), [0] * 4)
            )

        def taps(row: int, column: int) -> Any:
            start = builder.add(offset, builder.mul(stride, ir.Constant(stride.type, row)))
            index = builder.add(start, ir.Constant(start.type, 4 * column))
            place = _place(context, builder, signature.args[0], planes, index)
            vector = builder.load(builder.bitcast(place, four.as_pointer()))
            vector.align = 16
            _mark(builder, vector, 0)
            return vector

        signature4 = ir.FunctionType(four, [four] * 3)
        fma4 = cgutils.get_or_insert_function(builder.module, signature4, "llvm.fma.v4f32")

        def total(weights: list[Any], values: list[Any]) -> Any:
            value = builder.fmul(weights[0], values[0])
            for k in range(1, 4):
                value = builder.call(fma4, [weights[k], values[k], value])
            return value

        horizontal = [weight(signature.args[3], across, tap) for tap in range(4)]
        vertical = [weight(signature.args[4], down, tap) for tap in range(4)]
        rows = [total(horizontal, [taps(row, column) for column in range(4)]) for row in range(4)]
        sample = total(vertical, rows)
        values = [builder.extract_element(sample, ir.Constant(i32, plane)) for plane in range(3)]
        return context.make_tuple(builder, signature.return_type, values)

    indices = (types.intp, types.intp)
    return types.UniTuple(types.float32, 3)(planes, *indices, across, down, *indices), generate
