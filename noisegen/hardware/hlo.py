"""Reads the text of a program that XLA has optimized: its loops, kernels, bytes and FLOPs.

The text is no stable format. What is read of it: the instructions of each computation, their types
and operands, the computations that they call, and the attributes of products and convolutions.

>>> from noisegen.hardware import hlo
>>> text = '''ENTRY %main (a: f32[8,4], b: f32[4,2]) -> f32[8,2] {
...   %a = f32[8,4]{1,0} parameter(0)
...   %b = f32[4,2]{1,0} parameter(1)
...   ROOT %dot = f32[8,2]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
... }'''
>>> [kernel] = hlo.parse(text).kernels("main")
>>> kernel.op, kernel.flops, kernel.bytes
('dot', 128, 224)
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
    "c128": 16,
}
# A type such as bf16[64,16]{0,1:T(8,128)S(1)}: element type, dimensions, layout.
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\](\{{[^}}]*\}})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(
    r"\b(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
    r"|branch_computations=\{([^}]*)\}"
)

# These instructions are no kernels. They name or hold values, or run other instructions, and those
# count instead.
_VALUES = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"}
_VALUES |= {"partition-id", "replica-id", "opt-barrier"}
_CONTROL = {"while", "conditional", "call"}
# What runs beside other instructions is begun by one, such as "copy-start", and counts there. Other
# instructions wait for it.
_START, _WAITS = "-start", ("-update", "-done")
# These read no more of their first operand than their result has.
_PARTS = {"slice", "dynamic-slice", "gather"}
# Writes its second operand over a part of the first, in place; a copy is an instruction of its own.
_UPDATE = "dynamic-update-slice"
_NEW_MEMORY = "AllocateBuffer"  # a custom call of TPUs that writes nothing
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of an optimized program.

    Attributes:
      name: Its name, unique in its computation.
      type: Type of its result.
      op: Its operation, such as "fusion".
      operands: Names of its operands; of a parameter its index.
      attributes: The text after the operands.
    """

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    attributes: str

    @property
    def operation(self) -> str:
        """Its operation, without "-start" if other instructions wait for the result."""
        return self.op.removesuffix(_START)

    @property
    def result(self) -> str:
        """Type of what it computes: its type without its operands and without scratch memory."""
        parts = _elements(self.type)
        if self.op.endswith(_START) and self.operation != "all-reduce" and len(parts) > 1:
            # (copy, original, context), but (operands, result, context) of all others.
            return parts[0] if self.operation == "copy" else parts[1]
        if self.target.startswith(("__cublas$", "__cudnn$")) and len(parts) > 1:
            return ", ".join(parts[:-1])
        return self.type

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it runs."""
        names = []
        for one, several in _CALLED.findall(self.attributes):
            names += [one] if one else [each.strip().lstrip("%") for each in several.split(",")]
        return tuple(names)

    @property
    def source(self) -> str:
        """The path of JAX's operation that it comes from, or ''."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @property
    def target(self) -> str:
        """The function that a custom call calls, or ''."""
        match = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @property
    def calls_host(self) -> bool:
        """Whether the host runs a function for it.

        On a GPU this is a custom call. On a TPU the program sends the function's arguments.
        """
        is_sent = self.op == "send" and "is_host_transfer=true" in self.attributes
        return is_sent or "callback" in self.target


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An instruction that the device runs by itself.

    Attributes:
      op: Its operation; of a custom call the function called.
      source: The path of JAX's operation that it comes from.
      bytes: Size of its result and of what it reads of its operands, in the device's main memory.
        Of an array that is updated in place, only the part that is written counts, if it is the
        kernel's only result.
      flops: Floating-point operations of its products and convolutions.
      dtype: Type of the elements that those multiply, or ''.
      cycles: The compiler's own estimate of its time, in clock cycles; only a TPU's gives one.
    """

    op: str
    source: str
    bytes: int
    flops: int
    dtype: str
    cycles: int = 0


@dataclasses.dataclass(frozen=True)
class Module:
    """An optimized program.

    Attributes:
      computations: Instructions of each computation, by its name.
      entry: Name of the computation that begins.
    """

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str

    def loop(self, name: str) -> tuple[str, str]:
        """Finds the loop that JAX traced in `jax.named_scope(name)`.

        Returns:
          Names of its body, and of the computation that it is in.

        Raises:
          ValueError: If there is no such loop.
        """
        for outer, instructions in self.computations.items():
            for each in instructions:
                if each.op == "while" and each.source.endswith(f"/{name}/while"):
                    return each.called[0], outer
        raise ValueError(f"The program has no loop named {name!r}.")

    def kernels(self, computation: str) -> list[Kernel]:
        """Returns the kernels of a computation, without those of loops and branches in it."""
        types = {each.name: each.type for each in self.computations[computation]}
        found = []
        for each in self.computations[computation]:
            if each.op in _VALUES | _CONTROL or each.op.endswith(_WAITS):
                continue
            moved = self._bytes_written(each, types) + sum(self._bytes_read(each, types))
            flops, dtype = self._work(each, types)
            cycles = re.search(r'"estimated_cycles":"(\d+)"', each.attributes)
            found.append(
                Kernel(
                    op=each.target or each.op,
                    source=each.source,
                    bytes=moved,
                    flops=flops,
                    dtype=dtype,
                    cycles=int(cycles[1]) if cycles else 0,
                )
            )
        return found

    def reached(self, computation: str) -> Iterator[Instruction]:
        """Yields the instructions of a computation, then those of the computations that it runs."""
        seen, left = set(), [computation]
        while left:
            name = left.pop()
            if name in seen or name not in self.computations:
                continue
            seen.add(name)
            for instruction in self.computations[name]:
                yield instruction
                left += instruction.called

    def collectives(self, computation: str) -> dict[str, int]:
        """Counts the operations between devices of a computation, by kind."""
        counts: dict[str, int] = {}
        for each in self.computations[computation]:
            if each.operation in _COLLECTIVES:
                counts[each.operation] = counts.get(each.operation, 0) + 1
        return counts

    def summed_bytes(self, computation: str) -> int:
        """Returns the size of what a computation sums over devices, on one device."""
        return sum(
            num_bytes(each.type)
            for each in self.computations[computation]
            if each.operation == "all-reduce"
        )

    def _bytes_written(self, instruction: Instruction, types: Mapping[str, str]) -> int:
        """Returns how many bytes a kernel writes."""
        if instruction.operation == _UPDATE:
            return num_bytes(types.get(instruction.operands[1], ""))
        if instruction.operation in ("fusion", "async"):
            for name in instruction.called:
                fused = self.computations.get(name, ())
                if _updates_in_place(fused):
                    inner = {each.name: each.type for each in fused}
                    return num_bytes(inner.get(fused[-1].operands[1], ""))
        return num_bytes(instruction.result)

    def _bytes_read(self, instruction: Instruction, types: Mapping[str, str]) -> Iterator[int]:
        """Yields how many bytes a kernel reads of each operand."""
        for index, operand in enumerate(instruction.operands):
            size = num_bytes(types.get(operand, ""))
            if index == 0 and instruction.operation == _UPDATE:
                size = 0
            elif index == 0 and instruction.operation in _PARTS:
                size = min(size, num_bytes(instruction.result, on_chip=True))
            elif instruction.operation in ("fusion", "async"):
                for name in instruction.called:
                    size = min(size, self._bytes_read_of_parameter(name, index, size))
            yield size

    def _bytes_read_of_parameter(self, fused: str, index: int, size: int) -> int:
        """Returns how many bytes a fusion reads of its parameter, which has `size` bytes.

        Its result, the last instruction, may be this parameter with a part written over.
        """
        instructions = self.computations.get(fused, ())
        names = {
            each.name
            for each in instructions
            if each.op == "parameter" and each.operands == (str(index),)
        }
        if not names:
            return size
        total = 0
        # Instructions follow their operands.
        for each in instructions:
            if names.isdisjoint(each.operands):
                continue
            if each.op == "bitcast":
                names.add(each.name)
            elif not names.isdisjoint(each.operands[1:]):
                return size
            elif each.op in _PARTS:
                total += num_bytes(each.type, on_chip=True)
            elif each is not instructions[-1] or not _updates_in_place(instructions):
                return size
        return total

    def _work(self, instruction: Instruction, types: Mapping[str, str]) -> tuple[int, str]:
        """Returns FLOPs and type of the elements of a kernel's products and convolutions."""
        flops = _flops(instruction, types)
        if flops:
            return flops, element_type(types.get(instruction.operands[0], ""))
        dtype = ""
        if instruction.operation in ("fusion", "async", "custom-call"):
            for name in instruction.called:
                inner = {each.name: each.type for each in self.computations.get(name, ())}
                for each in self.computations.get(name, ()):
                    more, inner_dtype = self._work(each, inner)
                    flops, dtype = flops + more, inner_dtype or dtype
        return flops, dtype


def _updates_in_place(fused: Sequence[Instruction]) -> bool:
    """Returns whether the result of a fusion is a parameter, or new memory, with a part written."""
    if not fused or fused[-1].op != _UPDATE:
        return False
    by_name = {each.name: each for each in fused}
    changed = by_name.get(fused[-1].operands[0])
    while changed is not None and changed.op == "bitcast":
        changed = by_name.get(changed.operands[0])
    return changed is not None and (changed.op == "parameter" or changed.target == _NEW_MEMORY)


def parse(text: str) -> Module:
    """Reads the text of an optimized program, as `jax.stages.Compiled.as_text` returns it.

    Raises:
      ValueError: If it is no such text.
    """
    computations: dict[str, list[Instruction]] = {}
    name = entry = ""
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            name = header[2]
            computations[name] = []
            entry = name if header[1] else entry
        elif line.startswith("}"):
            name = ""
        elif name and (match := _INSTRUCTION.match(line)):
            computations[name].append(_instruction(match[1], match[2]))
    if not entry:
        raise ValueError("The text is no optimized program of XLA: it has no ENTRY computation.")
    return Module({name: tuple(each) for name, each in computations.items()}, entry)


def _instruction(name: str, text: str) -> Instruction:
    """Reads what follows the name: `TYPE op(operands), attributes`."""
    # The type of several results is in parentheses, and may hold blanks.
    end = _closing(text) + 1 if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    op, _, rest = rest.partition("(")
    end = _closing("(" + rest) - 1
    inside = rest[:end]
    operands = (inside,) if op == "parameter" else tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, kind, op, operands, rest[end + 1 :])


def _elements(kind: str) -> list[str]:
    """Returns the types in a tuple, or the type itself."""
    if not kind.startswith("("):
        return [kind]
    elements, depth = [""], 0
    for character in kind[1:-1]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            elements.append("")
        else:
            elements[-1] += character
    return [each.strip() for each in elements]


def _closing(text: str) -> int:
    """Returns the index of the parenthesis that closes the first one."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return index
    return len(text)


@functools.lru_cache(maxsize=100_000)
def num_bytes(kind: str, on_chip: bool = False) -> int:
    """Returns the size of a type in the device's main memory.

    Args:
      kind: The type.
      on_chip: Whether to count arrays in the memory on the chip of a TPU as well.
    """
    total = 0
    for dtype, dimensions, layout in _ARRAY.findall(kind):
        # S(1) is the memory on the chip.
        if on_chip or "S(1)" not in layout:
            total += _BYTES[dtype] * math.prod(map(int, filter(None, dimensions.split(","))))
    return total


def _shape(kind: str) -> list[int]:
    """Returns the dimensions of the first array of a type."""
    match = _ARRAY.search(kind)
    return [int(size) for size in match[2].split(",") if size] if match else []


def element_type(kind: str) -> str:
    """Returns the type of the elements of the first array of a type."""
    match = _ARRAY.search(kind)
    return match[1] if match else ""


def _flops(instruction: Instruction, types: Mapping[str, str]) -> int:
    """Returns the floating-point operations of a product or a convolution; else 0."""
    op, attributes, target = instruction.op, instruction.attributes, instruction.target
    shapes = [_shape(types.get(name, "")) for name in instruction.operands]
    result = _shape(instruction.result)
    if op == "dot" or target.startswith("__cublas$"):
        match = re.search(r'lhs_contracting_dim(?:s|ensions)"?[=:][{\[]([^}\]]*)', attributes)
        contracted = [int(index) for index in re.findall(r"\d+", match[1])] if match else []
        return 2 * math.prod(result) * math.prod(shapes[0][index] for index in contracted)
    if op == "convolution" or target.startswith("__cudnn$conv"):
        return _convolution_flops(target, attributes, shapes, result)
    return 0


def _convolution_flops(
    target: str, attributes: str, shapes: list[list[int]], result: list[int]
) -> int:
    """Returns 2 x outputs x window x channels of a group, positions in the padding included."""
    match = re.search(r"dim_labels=([a-z0-9?]+)_([a-z0-9?]+)->", attributes)
    if match is None or len(shapes) < 2:
        return 0
    if "BackwardFilter" in target:
        # Operands: input, gradient of the output. Result: the filter.
        outputs, kernel = shapes[1], result
    elif "BackwardInput" in target:
        # Operands: gradient of the output, filter. Result: gradient of the input.
        outputs, kernel = shapes[0], shapes[1]
    else:
        outputs, kernel = result, shapes[1]
    # Every axis of the filter but that of the outputs, which the positions of the output count.
    per_output = [
        size for size, label in zip(kernel, match[2], strict=False) if label not in ("o", "?")
    ]
    dilated = re.search(r"lhs_dilate=([\dx]+)", attributes)
    # Only one of so many positions of a dilated input holds a number.
    holes = math.prod(map(int, dilated[1].split("x"))) if dilated else 1
    return 2 * math.prod(outputs) * math.prod(per_output) // holes
