"""Text of graphs that contradicts itself, layers of impossible sizes, and graphs that nobody would trace: errors or results, never a crash."""
import numpy as np
import pytest

import deepseek
from deepseek import _core, nn


def parse(*lines):
    return deepseek.Graph.parse("graph {\n" + "\n".join(lines) + "\n}")


@pytest.mark.parametrize("line,message", [
    ("%1 = constant(%0) {value=f32[]<1>} : f32[]", "expected 0 inputs, got 1"),
    ("%1 = iota(%0) {dims=[2], axis=0, dtype=i64} : i64[2]", "expected 0 inputs, got 1"),
    ("%1 = add(%0) : f32[2]", "expected 2 inputs, got 1"),
    ("%1 = attention(%0) {scale=-1, causal=false} : f32[2]", "expected 3 to 4 inputs, got 1"),
    ("%1 = softmax(%0) : f32[2]", "needs the attribute 'axis'"),
    ("%1 = reshape(%0) {dims=[2147483647,2147483647,2147483647,-1]} : f32[2]", "cannot reshape"),
    ("%1 = reshape(%0) {dims=[65536,65536,65536,65536,-1]} : f32[2]", "cannot reshape"),
    ("%1 = broadcast_to(%0) {dims=[1048576,1048576,2]} : f32[1048576,1048576,2]", "elements"),
    ("%1,%2 = relu(%0) : f32[2],f32[2]", "outputs"),
])
def test_nodes(line, message):
    with pytest.raises(ValueError, match=message):
        parse('input %0 "x" : f32[2]', line, 'output "y" %1')


BODY = """{body=graph {
    input %0 "a" : f32[6,33]
    input %1 "b" : f32[33]
    %2 = add(%0,%1) : f32[6,33]
    %3 = relu(%2) : f32[6,33]
    %4 = sum(%2) {axes=[0], keepdims=false} : f32[33]
    %5 = sub(%3,%1) : f32[6,33]
    output "0" %3
    output "1" %5
    output "2" %4
  }} : f32[6,33],f32[6,33],f32[33]"""


@pytest.mark.parametrize("used", [[2], [3], [4], [2, 4], [3, 4], [2, 3], [2, 3, 4], [0]])
def test_outputs_of_a_fused_node_that_nobody_reads(used):
    graph = parse('input %0 "x0" : f32[6,33]', 'input %1 "x1" : f32[33]', "%2,%3,%4 = fused(%0,%1) " + BODY, *(f'output "y{v}" %{v}' for v in used))
    random = np.random.default_rng(0)
    a, b = random.standard_normal((6, 33)).astype(np.float32), random.standard_normal(33).astype(np.float32)
    values = {0: a, 2: np.maximum(a + b, 0), 3: np.maximum(a + b, 0) - b, 4: (a + b).sum(0)}
    for v, got in zip(used, _core.compile(graph).run([a, b])):
        np.testing.assert_allclose(got, values[v], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["i32", "i64"])
@pytest.mark.parametrize("index", [-1, 16, 10**9])
def test_pooling_indices_out_of_range(dtype, index):
    graph = parse('input %0 "g" : f32[1,1,2,2]', f'input %1 "i" : {dtype}[1,1,2,2]', "%2 = max_pool_grad(%0,%1) {input_dims=[1,1,4,4]} : f32[1,1,4,4]", 'output "y" %2')
    program = _core.compile(graph)
    indices = np.array([0, 5, 10, 15], {"i32": np.int32, "i64": np.int64}[dtype]).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(program.run([np.ones((1, 1, 2, 2), np.float32), indices])[0].ravel(), np.eye(4).ravel())
    indices[0, 0, 1, 0] = index
    with pytest.raises(ValueError, match="outside the plane"):
        program.run([np.ones((1, 1, 2, 2), np.float32), indices])


@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_pooling_indices_of_other_types(dtype):
    with pytest.raises(ValueError, match="i32 or i64 indices"):
        parse('input %0 "g" : f32[2,3,3]', f'input %1 "i" : {dtype}[2,3,3]', "%2 = max_pool_grad(%0,%1) {input_dims=[2,3,10]} : f32[2,3,10]", 'output "y" %2')


def test_nested_bodies():
    def nested(depth):
        inner = "%1 = relu(%0) : f32[2]" if depth == 0 else f"%1 = fused(%0) {{body={nested(depth - 1)}}} : f32[2]"
        return f'graph {{ input %0 "x" : f32[2] {inner} output "y" %1 }}'

    x = np.array([-1, 2], np.float32)
    for depth in (1, 3, 12):
        np.testing.assert_array_equal(_core.compile(deepseek.Graph.parse(nested(depth))).run([x])[0], [0, 2])
    with pytest.raises(ValueError, match="nested too deeply"):
        deepseek.Graph.parse(nested(200))


BIG = 2**31
LAYERS = [
    lambda: nn.Linear(BIG, BIG), lambda: nn.Linear(2**62, 2), lambda: nn.Linear(2**30, 2**30), lambda: nn.LayerNorm(2**62), lambda: nn.LayerNorm([2**30, 2**30]), lambda: nn.RMSNorm(2**62),
    lambda: nn.BatchNorm2d(2**62), lambda: nn.InstanceNorm2d(2**40, affine=True), lambda: nn.GroupNorm(1, 2**62), lambda: nn.Embedding(BIG, BIG), lambda: nn.Embedding(2**62, 1),
    lambda: nn.Conv2d(2**20, 2**20, 3), lambda: nn.Conv2d(2**62, 2, 1), lambda: nn.Conv1d(2, 2, 2**62), lambda: nn.ConvTranspose2d(2**20, 2**20, 3), lambda: nn.LSTM(BIG, BIG),
    lambda: nn.LSTM(4, 2**62), lambda: nn.GRU(2**62, 4), lambda: nn.LSTM(4, 4, num_layers=2**40), lambda: nn.MultiheadAttention(2**62, 1), lambda: nn.MultiheadAttention(2**30, 1),
    lambda: nn.TransformerEncoderLayer(BIG, 1), lambda: nn.TransformerEncoderLayer(8, 1, 2**62), lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 2**40),
]


@pytest.mark.parametrize("make", LAYERS)
def test_layers_of_impossible_sizes(make):
    with pytest.raises(ValueError, match=r"expected|parameter"):
        make()
