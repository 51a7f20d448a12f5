"""Every class of mistake that lowering finds, its place, and what the message says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from wengert.frontend import type_errors
from wengert.frontend.specialize import Static
from wengert.frontend.type_errors import Mistake
from wengert.ir.errors import ErrorGroup

X = [0.5, -1.5, 2.0]
M = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]

# (class, body of f(x: f32[n], m: f32[k, n], i: i32, c: bool), place, parts of the message)
BAD: list[tuple[str, str, str, list[str]]] = [
    ("DTypeMistake", "return x + i", "2:12", ["'+' needs operands of one type", "found: f32[3] and i32", "hint: convert it: f32(...)"]),
    ("DTypeMistake", "return x + f64(1)", "2:12", ["f32[3] and f64", "convert it: f64(...)"]),
    ("DTypeMistake", "return x and c", "2:12", ["'and' needs bools", "f32[3]"]),
    ("DTypeMistake", "return not x", "2:12", ["'not' needs a bool"]),
    ("DTypeMistake", "return -c", "2:12", ["needs a number"]),
    ("DTypeMistake", "return c + 1", "2:12", ["a number is not a bool"]),
    ("DTypeMistake", "return exp(i)", "2:12", ["'exp' needs floats", "real(x)"]),
    ("DTypeMistake", "return x[x > 0]", "2:14", ["a mask cannot be an index", "where(mask, a, b)"]),
    ("DTypeMistake", "return x[x]", "2:14", ["an index must be an integer", "i32(...)"]),
    ("DTypeMistake", "j: i32 = 2.5", "2:5", ["2.5 is not an integer"]),
    ("DTypeMistake", "x[0] = i", "2:5", ["the assigned value has another type", "expected: f32"]),
    ("DTypeMistake", "return where(x, x, 1)", "2:12", ["'where' needs a bool condition"]),
    ("SizeMistake", "return x + m.T", "2:12", ["shapes that do not broadcast", "f32[3] and f32[3,2]"]),
    ("SizeMistake", "return m @ m", "2:12", ["'@' of sizes that do not match", "f32[2,3] @ f32[2,3]", "x.T"]),
    ("SizeMistake", "return reshape(x, (2, 2))", "2:12", ["keeps the number of elements", "3 elements"]),
    ("SizeMistake", "return concat((m, m.T))", "2:12", ["agree in all other axes"]),
    ("SizeMistake", "return zeros((2^30, 2^30))", "2:12", ["too large", "2^40"]),
    ("SizeMistake", "return [u * v for u in zeros(2^21) for v in zeros(2^21)]", "2:12", ["too large"]),
    ("SizeMistake", "return 2^63", "2:12", ["overflows 64 bits"]),
    ("SizeMistake", "return 9^9^9", "2:12", ["overflows 64 bits"]),
    ("SizeMistake", "return i + 3000000000", "2:12", ["does not fit in i32", "i64(...)"]),
    ("SizeMistake", "return x * 1e300", "2:12", ["does not fit in f32"]),
    ("SizeMistake", "return zeros(0 - n)", "2:12", ["a size is negative"]),
    ("SizeMistake", "y: f32[k] = x", "2:5", ["'y'", "k = 2", "3"]),
    ("SizeMistake", "x[:2] = m", "2:5", ["does not fit"]),
    ("SizeMistake", "return max(x[:0])", "2:12", ["no elements"]),
    ("SizeMistake", "return einsum(\"ij,ij->j\", m, m.T)", "2:12", ["axis 'i' has two sizes"]),
    ("IndexMistake", "return x[3]", "2:14", ["index 3 is out of range", "-3 to 2"]),
    ("IndexMistake", "return x[0, 1]", "2:12", ["2 indices for an array of 1 axes"]),
    ("IndexMistake", "return sum(m, axis=2)", "2:12", ["there is no axis 2", "-2 to 1"]),
    ("IndexMistake", "return x[::-1]", "2:14", ["positive step", "flip"]),
    ("IndexMistake", "return (x, m)[2]", "2:12", ["the tuple has no item 2"]),
    ("IndexMistake", "return i[0]", "2:12", ["1 indices for an array of 0 axes"]),
    ("IndexMistake", "x[arange(2)] = 1", "2:5", ["index array cannot be assigned", "+="]),
    ("IndexMistake", "x[arange(2)] *= 2", "2:5", ["has no one meaning"]),
    ("IndexMistake", "return x[:0][i]", "2:18", ["an empty axis"]),
    ("StaticNeeded", "return zeros(i)", "2:12", ["must be a whole number known when compiling", "found: i32"]),
    ("StaticNeeded", "return x[:i]", "2:14", ["a slice bound", "static int"]),
    ("StaticNeeded", "return [j for j in 0..i]", "2:24", ["range of a comprehension", "size of the result"]),
    ("StaticNeeded", "assert sum(x) > 0, \"positive\"", "2:12", ["assert checks what is known"]),
    ("StaticNeeded", "return static_parameter(i)", "2:12", ["argument 'k' must be known", "static int", "12:21"]),
    ("StaticNeeded", "return einsum(x, x)", "2:12", ["formula as a string"]),
    ("CallMistake", "return x(1)", "2:12", ["this cannot be called", "f32[3]"]),
    ("CallMistake", "return clip(x)", "2:12", ["does not take these arguments", "expected: clip(x, low, high)", "without low, high", "held between"]),
    ("CallMistake", "return exp(x, base=2)", "2:12", ["expected: exp(x)", "base=the int 2"]),
    ("CallMistake", "g = helper\n    return g(x, x, x)", "3:12", ["expected: helper(a, b = ...)", "3 positional"]),
    ("CallMistake", "g = lambda v: v\n    return g(w=x)", "3:12", ["no parameter 'w'"]),
    ("CallMistake", "return f32(1, 2)", "2:12", ["converts one value"]),
    ("TypeMistake", "return x + \"text\"", "2:12", ["a number or an array is needed", "'text'"]),
    ("TypeMistake", "return x.sum()", "2:12", ["arrays have no 'sum'", "sum(x)"]),
    ("TypeMistake", "p = {mean: x}\n    return p.maen", "3:12", ["there is no 'maen'", "did you mean 'mean'?"]),
    ("TypeMistake", "p = {a: x}\n    p.b = 1", "3:5", ["no field 'b'"]),
    ("TypeMistake", "if x > 0:\n        x = x + 1", "2:8", ["a condition must be one bool", "bool[3]", "where(mask"]),
    ("TypeMistake", "if i:\n        x = x + 1", "2:8", ["a condition must be one bool", "x != 0"]),
    ("TypeMistake", "a, b = x", "2:5", ["number of names", "3 names", "2 names"]),
    ("TypeMistake", "for v in i:\n        x = x + v", "2:14", ["cannot be iterated over"]),
    ("TypeMistake", "for u, v in zip(x, m):\n        x = x + u", "2:17", ["different lengths"]),
    ("TypeMistake", "return [x, (x, x)]", "2:12", ["items of a list must be of one type"]),
    ("TypeMistake", "return helper", "2:12", ["a run-time value is needed", "the function 'helper'"]),
    ("TypeMistake", "return 1 / 0", "2:12", ["division by zero"]),
    ("TypeMistake", "return P(w=x, b=(x, x))", "2:12", ["'b' does not fit its type", "f32[d]"]),
    ("TypeMistake", "return takes(x)", "2:12", ["'p' does not fit its type", "P (declared at", "f32[3]"]),
    ("TypeMistake", "return takes({w: x, c: x})", "2:12", ["it lacks b; P has no c"]),
    ("SizeMistake", "return takes({w: x, b: x[:2]})", "2:12", ["sizes of 'P.b' and 'P.w'", "d = 3", "d = 2"]),
    ("TypeMistake", "return normal(1, (2,))", "2:12", ["a random key is needed", "'k: key'"]),
    ("UnboundName", "if c:\n        y = 1\n    return y", "4:12", ["'y' may have no value", "only one branch of the 'if' at line 2"]),
    ("UnboundName", "for j in 0..3:\n        y = x\n    return y", "4:12", ["only set inside the loop at line 2"]),
    ("UnboundName", "for j in 0..3:\n        x = x + 1\n    return j", "4:12", ["variable of the loop at line 2"]),
    ("UnboundName", "if c:\n        g = sin\n    else:\n        g = cos\n    return g(x)", "6:12", ["different functions"]),
    ("BranchMistake", "return x if c else m", "2:12", ["has another type in each branch", "f32[3] and f32[2,3]"]),
    ("BranchMistake", "if c:\n        x = i\n    return x", "2:5", ["'x' has another type in each branch"]),
    ("BranchMistake", "return switch(i, (sum, lambda v: v), x)", "2:12", ["the result has another type"]),
    ("BranchMistake", "if c:\n        return i\n    return x", "2:5", ["the returned value has another type"]),
    ("LoopMistake", "for j in 0..3:\n        x = concat((x, x))\n    return x", "2:5", ["'x' changes its type", "f32[3], as before the loop", "f32[6]"]),
    ("LoopMistake", "while sum(x) > 0:\n        x = sum(x)\n    return x", "2:5", ["'x' changes its type"]),
    ("LoopMistake", "for j in 0..3:\n        if c:\n            return x", "4:13", ["cannot be left by 'return'", "after the loop"]),
    ("LoopMistake", "while true:\n        x = x + 1", "2:11", ["never ends"]),
    ("LoopMistake", "while c max 0:\n        x = x + 1", "2:17", ["must be positive"]),
    ("LoopMistake", "return scan(lambda a, v: (zeros(2) + v, v), x, x)", "2:12", ["'the carry' changes its type"]),
    ("DerivativeMistake", "return grad(lambda v: v * 2, x)", "2:12", ["one float scalar", "f32[3]", "jacobian"]),
    ("DerivativeMistake", "return grad(lambda j: 1.0, i)", "2:12", ["argument 0 is not differentiable", "i32"]),
    ("DerivativeMistake", "return grad(sum, x, wrt=1)", "2:12", ["wrt names no argument", "0 to 0"]),
    ("DerivativeMistake", "return jvp(sum, x, x[:2])", "2:12", ["a tangent is of another type", "f32[3]", "f32[2]"]),
    ("DerivativeMistake", "v, back = vjp(sum, x)\n    return back(x)", "3:12", ["the cotangent is of another type", "expected: f32"]),
    ("RecursionMistake", "return endless(x)", "14:23", ["'endless' calls itself without end", "endless -> endless", "static argument"]),
    ("RecursionMistake", "return deep(100000)", "16:33", ["deeper than 500", "deep -> deep"]),
    ("RecursionMistake", "return ouroboros", "20:19", ["'ouroboros' calls itself"]),
    ("AssertionFailed", "assert n == 4, \"four points\"", "2:5", ["four points"]),
]  # fmt: skip
HELPERS = """
record P:
    w: f32[d]
    b: f32[d]
fn takes(p: P): return p.w + p.b
fn static_parameter(k: static int): return k
fn helper(a, b=1): return a
fn endless(v): return endless(v)
fn deep(n: static int):
    return 0 if n == 0 else 1 + deep(n - 1)

fn unused(v): return v

const ouroboros = ouroboros + 1
"""


def failure(lower: Any, text: str, **args: Any) -> Mistake:
    with pytest.raises((Mistake, ErrorGroup)) as caught:
        lower(text, **args)
    assert isinstance(caught.value, Mistake), caught.value
    return caught.value


@pytest.mark.parametrize(("name", "body", "place", "parts"), BAD, ids=[b[1][:40] for b in BAD])
def test_mistake(lower: Any, name: str, body: str, place: str, parts: list[str]) -> None:
    first = f"fn f(x: f32[n], m: f32[k, n], i: i32, c: bool):\n    {body}\n"
    if not re.search(r"^    return", first, re.MULTILINE):
        first += "    return x\n"
    text = first + "\n" * (6 - first.count("\n")) + HELPERS
    error = failure(lower, text, x=X, m=M, i=1, c=True)
    assert type(error).__name__ == name, error
    line, col = (int(v) for v in place.split(":"))
    assert error.span is not None
    assert (error.span.line, error.span.col) == (line, col), str(error)
    for part in parts:
        assert part in str(error), f"{part!r} is not in:\n{error}"
    assert " | " in str(error) and "^" in str(error)


def test_every_class_has_a_bad_program() -> None:
    classes = {
        n for n, c in vars(type_errors).items() if isinstance(c, type) and issubclass(c, Mistake)
    }
    programs = {"AddressMistake", "StrategyMistake", "SupportMistake"}  # test_programs.py
    dialects = {"ShapeMistake", "TreeLabelMistake"}  # test_shapes.py, stdlib/test_trees.py
    assert classes - {"Mistake"} - programs - dialects == {b[0] for b in BAD}


def test_size_mismatch_names_both_parameters(lower: Any) -> None:
    text = "fn f(x: f32[n], y: f32[n]): return x + y\n"
    error = failure(lower, text, x=X, y=[1.0])
    assert "sizes of 'y' and 'x' of 'f' do not agree" in str(error)
    assert "expected: n = 3, as in 'x'" in str(error) and "found: n = 1 in 'y'" in str(error)
    error = failure(lower, "fn f(x: f32[n], q: f32[n * (n + 1) // 2]): return x\n", x=X, q=X)
    assert "n * (n + 1) // 2 = 6 (n = 3 from 'x')" in str(error)
    error = failure(lower, "fn f(x: f32[n, n]): return x\n", x=M)
    assert "sizes of 'x' of 'f'" in str(error)
    error = failure(lower, "fn f(x: f32[n, d]): return x\n", x=X)
    assert "'x' of 'f' has 1 axes" in str(error) and "2: f32[n, d]" in str(error)
    error = failure(lower, "fn f(x: f32[2 * n]): return x\n", x=X)
    assert "the size 'n' is not known here" in str(error)
    error = failure(lower, "fn f(x: f32[n]) -> f32[n, 2]: return x\n", x=X)
    assert "the result of f" in str(error)


def test_a_record_and_an_array_share_sizes(lower: Any) -> None:
    text = "record P:\n    w: f32[d]\nfn f(p: P, x: f32[n, d]): return x @ p.w\n"
    error = failure(lower, text, p={"w": convert32([1.0, 2.0])}, x=M)
    assert "d = 2, as in 'p.w'" in str(error) and "d = 3 in 'x'" in str(error)


def convert32(values: list[float]) -> Any:
    import numpy as np

    return np.array(values, np.float32)


def test_errors_in_called_functions_tell_the_call(lower: Any) -> None:
    text = """
fn inner(a, b):
    return a @ b
fn outer(a):
    return inner(a, a) + 1
fn f(m: f32[k, n]):
    return outer(m)
"""
    message = str(failure(lower, text, m=M))
    assert message.startswith("test.wg:3:12: '@' of sizes that do not match")
    assert "in the call at test.wg:5:12\n  in the call at test.wg:7:12" in message


def test_several_errors_are_reported_in_one_go(lower: Any) -> None:
    text = """
fn helper(a):
    t = a @ 3.0
    return t + 1
fn f(x: f32[n], m: f32[k, n]):
    y = x + m.T
    z = y * 2
    w = helper(x)
    for i in 0..3:
        x = x + "text"
        v = x + w
    if sum(m) > 0:
        x = m @ m
    u = x[7] + helper(m)
    return z + w + x + q(m)
fn q(m): return m[0, 0, 0]
"""
    with pytest.raises(ErrorGroup) as caught:
        lower(text, x=X, m=M)
    lines = [e.span.line for e in caught.value.errors if e.span]
    assert lines == [6, 3, 10, 13], str(caught.value)
    assert "4 errors" in str(caught.value)


def test_retried_loops_report_once_and_only_what_holds(lower: Any, run: Any) -> None:
    text = """
fn f(x: f32[n]):
    s = 0
    for i in 0..n:
        s = s + x[i]
        t = exp(s)
    v = 0.0
    for i in 0..n:
        v = v + x
        w = v[0:1] if rank(v) == 1 else x
    return s, v
"""
    assert run(text, x=X)[0] == 1
    with pytest.raises(Mistake) as caught:
        lower(text.replace("exp(s)", "exp(i)"), x=X)
    assert not isinstance(caught.value, ErrorGroup)


def test_static_arguments_of_the_wrong_kind(lower: Any) -> None:
    for given in (1.5, True, "3"):
        error = failure(lower, "fn f(n: static int): return zeros(n)\n", n=Static(given))
        assert "static int" in str(error)


def test_too_many_errors_stop(lower: Any) -> None:
    body = "".join(f"    a{i} = x + {i} @ {i}\n" for i in range(50))
    with pytest.raises(ErrorGroup) as caught:
        lower(f"fn f(x: f32[n]):\n{body}    return x\n", x=X)
    assert len(caught.value.errors) == 20


def test_branches_that_sometimes_return_are_limited(lower: Any) -> None:
    step = "    if x > {0}.0:\n        if x > {0}.5:\n            return x\n        x = x * 2\n"
    body = "".join(step.format(i) for i in range(40))
    error = failure(lower, f"fn f(x: f32):\n{body}    return x\n", x=1.0)
    assert "too many branches that only sometimes return" in str(error)
    body = "".join(step.format(i) for i in range(5))
    lower(f"fn f(x: f32):\n{body}    return x\n", x=1.0)
