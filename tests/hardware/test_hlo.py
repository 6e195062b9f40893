"""Reading optimized programs: made-up ones whose numbers are known."""

import jax
import jax.numpy as jnp
import pytest

from noisegen.hardware import hlo

LOOP = """HloModule made_up, is_scheduled=true

%fused (p0: f32[16,8], p1: f32[8,4]) -> f32[16,4] {
  %p0 = f32[16,8]{1,0} parameter(0)
  %p1 = f32[8,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[16,4]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (carry: (s32[], f32[16,8], f32[8,4])) -> (s32[], f32[16,8], f32[8,4]) {
  %carry = (s32[], f32[16,8]{1,0}, /*index=2*/f32[8,4]{1,0}) parameter(0)
  %step = s32[] get-tuple-element(%carry), index=0
  %x = f32[16,8]{1,0} get-tuple-element(%carry), index=1
  %w = f32[8,4]{1,0:T(8,128)S(1)} get-tuple-element(%carry), index=2
  %product = f32[16,4]{1,0} fusion(%x, %w), kind=kOutput, calls=%fused, \
metadata={op_name="jit(f)/while/body/dot_general"}, backend_config={"estimated_cycles":"70"}
  %sum = f32[16,4]{1,0} all-reduce(%product), to_apply=%add
  ROOT %next = (s32[], f32[16,8]{1,0}, f32[8,4]{1,0}) tuple(%step, %x, %w)
}

ENTRY %main (a: s32[]) -> s32[] {
  %a = s32[] parameter(0)
  %while = (s32[], f32[16,8]{1,0}, f32[8,4]{1,0}) while(%a), condition=%condition, body=%body, \
metadata={op_name="jit(f)/steps/while"}
  %called = f32[2]{0} custom-call(%a), custom_call_target="xla_python_gpu_callback"
  ROOT %result = s32[] get-tuple-element(%while), index=0
}
"""


def test_a_named_loop_is_found_with_its_kernels():
    module = hlo.parse(LOOP)
    assert module.loop("steps") == ("body", "main")
    product, total = module.kernels("body")
    assert (product.op, product.source) == ("fusion", "jit(f)/while/body/dot_general")
    assert product.flops == 2 * 16 * 8 * 4 and product.dtype == "f32"
    # The weights lie in the memory on the chip, S(1), and are not counted.
    assert product.bytes == 4 * (16 * 8 + 16 * 4)
    assert product.cycles == 70
    assert (total.op, total.flops, total.bytes) == ("all-reduce", 0, 2 * 4 * 16 * 4)
    assert module.collectives("body") == {"all-reduce": 1}
    assert module.summed_bytes("body") == 4 * 16 * 4


FUSED = """HloModule made_up, is_scheduled=true

%fused (p0: f32[64,8], p1: s32[]) -> f32[1,8] {{
  %p1 = s32[] parameter(1)
  %p0 = f32[64,8]{{1,0}} parameter(0)
{lines}
}}

ENTRY %main (a: f32[64,8], i: s32[]) -> f32[1,8] {{
  %a = f32[64,8]{{1,0}} parameter(0)
  %i = s32[] parameter(1)
  ROOT %result = f32[1,8]{{1,0}} fusion(%a, %i), kind=kLoop, calls=%fused
}}
"""
SLICE = "  %s = f32[1,8]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={1,8}"


@pytest.mark.parametrize(
    "lines, elements",
    [
        (SLICE, 8),
        ("  %b = f32[64,8]{1,0} bitcast(%p0)\n" + SLICE.replace("%p0", "%b"), 8),
        ("  %s = f32[1,8]{1,0} gather(%p0, %p1), slice_sizes={1,8}", 8),
        (SLICE + "\n" + SLICE.replace("%s", "%t"), 2 * 8),
        (SLICE + "\n  %n = f32[64,8]{1,0} negate(%p0)", 64 * 8),
        (SLICE.replace("(%p0, %p1, %p1)", "(%p0, %p1, %p0)"), 64 * 8),
    ],
)
def test_of_a_parameter_that_is_only_sliced_the_slices_count(lines, elements):
    [kernel] = hlo.parse(FUSED.format(lines=lines)).kernels("main")
    assert kernel.bytes == 4 * (elements + 1 + 8)  # read, the index, and written


def test_a_slice_by_itself_reads_what_it_results_in():
    text = FUSED.format(lines=SLICE).replace("fusion(%a", "dynamic-slice(%a")
    [kernel] = hlo.parse(text).kernels("main")
    assert kernel.bytes == 4 * (8 + 1 + 8)


UPDATE = "  ROOT %u = f32[64,8]{1,0} dynamic-update-slice(%p0, %r, %p1, %p1)"
ROW = "  %r = f32[1,8]{1,0} constant({...})\n"


@pytest.mark.parametrize(
    "lines, read, written",
    [
        (ROW + UPDATE, 0, 8),
        ("  %b = f32[64,8]{1,0} bitcast(%p0)\n" + ROW + UPDATE.replace("(%p0", "(%b"), 0, 8),
        (SLICE.replace("%s", "%r") + "\n" + UPDATE, 8, 8),
        ("  %n = f32[64,8]{1,0} negate(%p0)\n" + ROW + UPDATE, 64 * 8, 8),
        (
            '  %n = f32[64,8]{1,0} custom-call(), custom_call_target="AllocateBuffer"\n'
            + SLICE.replace("%s", "%r")
            + "\n"
            + UPDATE.replace("(%p0", "(%n"),
            8,
            8,
        ),
        # Of another array than the parameter: all of it is written.
        (
            "  %n = f32[64,8]{1,0} negate(%p0)\n" + ROW + UPDATE.replace("(%p0", "(%n"),
            64 * 8,
            64 * 8,
        ),
    ],
)
def test_of_an_array_that_is_updated_in_place_the_part_that_is_written_counts(lines, read, written):
    text = FUSED.format(lines=lines).replace("%result = f32[1,8]", "%result = f32[64,8]")
    [kernel] = hlo.parse(text).kernels("main")
    assert kernel.bytes == 4 * (read + 1 + written)


@pytest.mark.parametrize(
    ("lines", "moved"),
    [
        ("%d = f32[1024]{0} collective-permute(%a)", 2 * 4096),
        (
            "%s = (f32[1024]{0}, f32[1024]{0}, u32[]{:S(2)}, u32[]{:S(2)}) "
            "collective-permute-start(%a)\n  %d = f32[1024]{0} collective-permute-done(%s)",
            2 * 4096,
        ),
        (
            "%s = (f32[1024]{0:T(1024)S(1)}, f32[1024]{0}, u32[]{:S(2)}) copy-start(%a)\n"
            "  %d = f32[1024]{0:T(1024)S(1)} copy-done(%s)",
            4096,
        ),
        (
            "%s = ((f32[1024]{0}), f32[16]{0:T(128)S(1)}, u32[]{:S(2)}) slice-start(%a)\n"
            "  %d = f32[16]{0:T(128)S(1)} slice-done(%s)",
            64,
        ),
        (
            "%s = (f32[1024]{0}, f32[8192]{0}) all-gather-start(%a)\n"
            "  %d = f32[8192]{0} all-gather-done(%s)",
            9 * 4096,
        ),
        (
            "%s = f32[1024]{0} all-reduce-start(%a), to_apply=%add\n"
            "  %d = f32[1024]{0} all-reduce-done(%s)",
            2 * 4096,
        ),
        (
            "%s = ((f32[1024]{0}), f32[1024]{0}, u32[]) async-start(%a), calls=%wrapped\n"
            "  %t = ((f32[1024]{0}), f32[1024]{0}, u32[]) async-update(%s)\n"
            "  %d = f32[1024]{0} async-done(%t)",
            2 * 4096,
        ),
        # The last result is scratch memory.
        (
            "%d = (f32[64,64]{1,0}, s8[33554432]{0}) custom-call(%b, %b), "
            'custom_call_target="__cublas$gemm"',
            3 * 4 * 64 * 64,
        ),
    ],
    ids=["permute", "begun permute", "copy", "slice", "gather", "reduce", "async", "scratch"],
)
def test_an_operation_that_is_begun_and_awaited_counts_once(lines, moved):
    text = f"""ENTRY %main (a: f32[1024], b: f32[64,64]) -> f32[] {{
  %a = f32[1024]{{0}} parameter(0)
  %b = f32[64,64]{{1,0}} parameter(1)
  {lines}
  ROOT %zero = f32[] constant(0)
}}"""
    [kernel] = hlo.parse(text).kernels("main")
    assert kernel.bytes == moved


def test_products_of_a_fusion_that_is_begun_count():
    begun = LOOP.replace(
        "%product = f32[16,4]{1,0} fusion(",
        "%begun = ((f32[16,8]{1,0}, f32[8,4]{1,0}), f32[16,4]{1,0}, u32[]) fusion-start(",
    )
    kernel = hlo.parse(begun).kernels("body")[0]
    assert kernel.flops == 2 * 16 * 8 * 4 and kernel.bytes == 4 * (16 * 8 + 16 * 4)


def test_calls_of_the_host_are_reached_from_the_entry():
    [call] = [each for each in hlo.parse(LOOP).reached("main") if each.calls_host]
    assert call.target == "xla_python_gpu_callback"


def test_what_a_tpu_sends_to_the_host_is_a_call():
    transfers = [
        "%s = (f32[], u32[], token[]) send(%a, %t), channel_id=1, is_host_transfer=true",
        "%u = token[] send-done(%s), channel_id=1, is_host_transfer=true",
        "%r = (f32[], u32[], token[]) recv(%u), channel_id=2, is_host_transfer=true",
    ]
    text = LOOP.replace(
        "  %called = ", "\n".join(f"  {each}" for each in transfers) + "\n  %called = "
    )
    assert sum(each.calls_host for each in hlo.parse(text).reached("main")) == 2


@pytest.mark.parametrize(
    ("line", "flops"),
    [
        # 8 images of 6 x 6 pixels, 3 channels to 5, windows of 3 x 3
        (
            "(bf16[8,6,6,5]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1},"
            ' dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"',
            2 * (8 * 6 * 6 * 5) * (3 * 3 * 3),
        ),
        (
            "(bf16[5,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%x, %dy), window={size=3x3},"
            ' dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"',
            2 * (8 * 6 * 6 * 5) * (3 * 3 * 3),
        ),
        (
            "bf16[8,6,6,3]{3,2,1,0} custom-call(%dy, %k), window={size=3x3},"
            ' dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"',
            2 * (8 * 6 * 6 * 5) * (3 * 3 * 3),
        ),
        (
            "f32[8,12,12,3]{3,2,1,0} convolution(%dy, %k), window={size=3x3 lhs_dilate=2x2},"
            " dim_labels=b01f_i01o->b01f",
            2 * (8 * 12 * 12 * 3) * (5 * 3 * 3) // 4,
        ),
        (
            'f32[6,4]{1,0} custom-call(%a, %b), custom_call_target="__cublas$gemm",'
            ' backend_config={"gemm_backend_config":{"dot_dimension_numbers":'
            '{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}',
            2 * 6 * 4 * 7,
        ),
    ],
    ids=["forward", "filter", "input", "dilated", "gemm"],
)
def test_floating_point_operations_are_those_of_the_definition(line, flops):
    text = f"""ENTRY %main (a: f32[]) -> f32[] {{
  %x = bf16[8,6,6,3]{{3,2,1,0}} parameter(0)
  %dy = bf16[8,6,6,5]{{3,2,1,0}} parameter(1)
  %k = bf16[5,3,3,3]{{3,2,1,0}} parameter(2)
  %a = f32[6,7]{{1,0}} parameter(3)
  %b = f32[7,4]{{1,0}} parameter(4)
  ROOT %result = {line}
}}"""
    [kernel] = hlo.parse(text).kernels("main")
    assert kernel.flops == flops


def test_a_program_of_this_jax_is_read():
    def f(x, w):
        with jax.named_scope("steps"):
            return jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ w), x)

    text = jax.jit(f).lower(jnp.ones((8, 4)), jnp.ones((4, 4))).compile().as_text()
    module = hlo.parse(text)
    loop, _ = module.loop("steps")
    flops = sum(kernel.flops for kernel in module.kernels(loop))
    # On a CPU the product may be a call of a library, whose operations are not counted.
    assert flops in (0, 2 * 8 * 4 * 4)
    assert sum(kernel.bytes for kernel in module.kernels(loop)) >= 4 * (2 * 8 * 4 + 4 * 4)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no optimized program"):
        hlo.parse("x = 1")
    with pytest.raises(ValueError, match="no loop named 'epochs'"):
        hlo.parse(LOOP).loop("epochs")
