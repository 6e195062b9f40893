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


def test_calls_of_the_host_are_reached_from_the_entry():
    module = hlo.parse(LOOP)
    assert [each.target for each in module.reached("main") if each.target] == [
        "xla_python_gpu_callback"
    ]


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
    flops = sum(kernel.flops for kernel in module.kernels(module.loop("steps")[0]))
    # On a CPU the product may be a call of a library, whose operations are not counted.
    assert flops in (0, 2 * 8 * 4 * 4)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no optimized program"):
        hlo.parse("x = 1")
    with pytest.raises(ValueError, match="no loop named 'epochs'"):
        hlo.parse(LOOP).loop("epochs")
