"""Every strategy for every distribution that it fits, against exact derivatives of expectations.

The pairs are found from the declarations. A problem has a distribution's parameters, a non-linear
loss and the exact mean of that loss as a function of the parameters: a sum, quadrature or a closed
form in f64, whose central differences (error about 1e-8) are the derivative.

The estimates of all strategies are averaged over draws until a bias of BIAS of the gradient of a
parameter would be found with probability above 0.99: the standard error is at most
BIAS / (4.5 + 2.33) of that gradient. The averages must then be within 4.5 standard errors. XLA
draws the same numbers, so its estimates must be those of LLVM, draw by draw.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from wengert.frontend import syntax
from wengert.frontend.program import compile_text
from wengert.frontend.strategies import fits
from wengert.ir.errors import WengertError
from wengert.runtime.keys import split_key

import wengert as wg

BIAS = 0.05  # of the gradient, found with probability above 0.99: scalars; twice that for batches
SLOW_BIAS = 0.02  # in slow tests, in the same way
POWER = 4.5 + 2.33
CHUNK = 20_000
MOST = 700  # chunks

Mean = Callable[..., Any]


def h(x: Any) -> Any:
    """The loss of one number, minus a constant that keeps variances small."""
    return np.tanh(0.8 * x) + 1 / (1 + x * x) - 0.9


def rise(x: Any) -> Any:
    """The loss of one number that is not negative."""
    return np.tanh(0.6 * x) - 0.5


def F(m: Any) -> Any:
    """The loss of a batch of three, from those of its elements; linear in each, so that the
    expectation is F of the elements' expectations.
    """
    return m[0] + m[1] * m[2] + 0.5 * m[0] * m[2]


LOSSES = """
fn h(x): return tanh(0.8 * x) + 1.0 / (1.0 + x * x) - 0.9
fn rise(x): return tanh(0.6 * x) - 0.5
fn angle(x): return sin(x) + 0.5 * cos(2.0 * x)
fn waves(x): return sin(0.8 * x[0] - 0.5 * x[1] + 0.3) + 0.5 * cos(0.6 * x[1] - 0.4 * x[0])
fn shares(x): return 2.0 * x[0] * x[1] + x[2] * x[2] - 0.4
fn correlations(l):
    r = l @ l.T
    return r[1, 0]^2 + 2.0 * r[2, 0]^4 - 0.5 * r[2, 1]^2
fn mixed(x): return 0.8 * x[0] - 0.5 * x[1] + 0.3 * x[2] + x[0] * x[1] + x[0] * x[0] * x[2]
fn word(x): return h(real(x[0]) + 0.5 * real(x[1]) - real(x[1] * x[2]))
fn counts(x): return h(real(x[0]) - 0.5 * real(x[1])) + 0.3 * real(x[2])
fn table(i): return take(real([0.8, -0.5, 0.3]), i)
fn F(m): return m[0] + m[1] * m[2] + 0.5 * m[0] * m[2]
"""


# Exact means


NODES, WEIGHTS = np.polynomial.legendre.leggauss(50)
LEVELS = np.concatenate([np.logspace(-9, -1, 9), [0.2, 0.35]])


def quadrature(dist: Callable[..., Any], loss: Callable[[Any], Any] = h) -> Mean:
    """The mean of `loss` under a continuous distribution of SciPy: Gauss-Legendre between quantiles."""

    def mean(*parameters: float) -> float:
        exact = dist(*parameters)
        edges = np.concatenate([exact.ppf(LEVELS), [exact.median()], exact.isf(LEVELS)[::-1]])
        middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
        x = middle[:, None] + half[:, None] * NODES
        beyond = LEVELS[0] * (loss(edges[0]) + loss(edges[-1]))  # the loss being smooth there
        return float((exact.pdf(x) * loss(x) @ WEIGHTS * half).sum() + beyond)

    return mean


def summed(dist: Callable[..., Any]) -> Mean:
    """The mean of `rise` under a discrete distribution of SciPy."""

    def mean(*parameters: float) -> float:
        exact = dist(*parameters)
        k = np.arange(int(exact.ppf(1 - 1e-14)) + 3)
        return float((exact.pmf(k) * rise(k)).sum())

    return mean


def waves_mean(loc: Any, cov: Any) -> float:
    """E[waves(x)], x normal: E[sin(a x + c)] = sin(a loc + c) exp(-a cov a / 2)."""
    a, b = np.zeros((2, len(loc)))
    a[:2], b[:2] = (0.8, -0.5), (-0.4, 0.6)
    damp = lambda v: np.exp(-0.5 * v @ cov @ v)
    return float(np.sin(a @ loc + 0.3) * damp(a) + 0.5 * np.cos(b @ loc) * damp(b))


def dirichlet_mean(a: Any) -> float:
    total = a.sum()
    squares = total * (total + 1)
    return float((2 * a[0] * a[1] + a[2] * (a[2] + 1)) / squares - 0.4)


def lkj_mean(concentration: float) -> float:
    """Every correlation of 3 x 3 is beta(c + 1/2, c + 1/2) on (-1, 1)."""
    a = concentration + 0.5
    second = 1 / (2 * a + 1)
    return second + 2 * 3 * second / (2 * a + 3) - 0.5 * second


def categorical_mean(p: Any) -> float:
    return float(p @ np.array([0.8, -0.5, 0.3]) / p.sum())


def chain_mean(initial: Any, transition: Any) -> float:
    first, steps = special.softmax(initial), special.softmax(transition, axis=1)
    words = product(range(len(initial)), repeat=3)
    return float(
        sum(first[i] * steps[i, j] * steps[j, k] * h(i + 0.5 * j - j * k) for i, j, k in words)
    )


def mixture_mean(logits: Any, loc: Any, scale: Any) -> float:
    one = quadrature(stats.norm)
    return float(special.softmax(logits) @ [one(m, s) for m, s in zip(loc, scale)])


def multinomial_mean(p: Any) -> float:
    exact = stats.multinomial(4, p / p.sum())
    words = [np.array(w) for w in product(range(5), repeat=3) if sum(w) == 4]
    return float(sum(exact.pmf(w) * (h(w[0] - 0.5 * w[1]) + 0.3 * w[2]) for w in words))


# The problems


@dataclass(frozen=True)
class Problem:
    """A distribution at some parameters.

    parameters: three sets of them, the elements of a batch; the first one alone for scalars.
    mean: of the loss, by the parameters of one element.
    made: arguments of the distribution, where they are not the parameters.
    loss: of one element x. batched: whether there are batches of it.
    blind: (strategy, parameter) that the strategy refuses.
    soft: the loss of a relaxed x.
    """

    parameters: dict[str, list[Any]]
    mean: Mean
    loss: str = "h(x)"
    made: str = ""
    batched: bool = True
    blind: frozenset[tuple[str, str]] = frozenset()
    soft: str = ""
    static: dict[str, str] = field(default_factory=dict)


def refused(parameters: str, strategies: str) -> frozenset[tuple[str, str]]:
    """Pairs of all strategies and parameters."""
    return frozenset(product(strategies.split(), parameters.split()))


SCORE = "reinforce reinforce_loo"
LOC = [np.array(v) for v in ([0.4, -0.3], [0.1, 0.5], [-0.6, 0.2])]
ROOT = [np.array(v) for v in ([[0.9, 0.0], [0.4, 0.7]], [[0.6, 0.0], [-0.3, 1.1]], [[1.2, 0.0], [0.2, 0.8]])]  # fmt: skip
WIDE = [np.array(v) for v in ([[0.5], [-0.4]], [[0.2], [0.6]], [[-0.7], [0.3]])]
NOISE = [np.array(v) for v in ([0.6, 0.9], [1.1, 0.4], [0.7, 0.5])]
SHARES = [np.array(v) for v in ([0.5, 0.8, 0.4], [0.2, 0.3, 0.9], [1.0, 0.4, 0.7])]
LOGITS = [np.array(v) for v in ([0.3, -0.4, 0.6], [0.0, 0.5, -0.5], [0.9, 0.2, -0.1])]
STARTS = [np.array(v) for v in ([0.3, -0.4], [0.0, 0.5], [0.9, 0.2])]
STEPS = np.array([[0.5, -0.2], [0.4, -0.6]])

PROBLEMS: dict[str, Problem] = {
    "normal": Problem({"loc": [0.4, -0.2, 0.7], "scale": [0.9, 0.6, 1.1]}, quadrature(stats.norm)),
    "student_t": Problem(
        {"df": [1.2, 0.9, 2.0], "loc": [0.4, -0.2, 0.7], "scale": [0.9, 0.6, 1.1]},
        quadrature(stats.t),
    ),
    "cauchy": Problem({"loc": [0.4, -0.2, 0.7], "scale": [0.9, 0.6, 1.1]}, quadrature(stats.cauchy)),
    "laplace": Problem({"loc": [0.4, -0.2, 0.7], "scale": [0.9, 0.6, 1.1]}, quadrature(stats.laplace)),
    "logistic": Problem({"loc": [0.4, -0.2, 0.7], "scale": [0.9, 0.6, 1.1]}, quadrature(stats.logistic)),
    "delta": Problem({"value": [0.4, -0.2, 0.7]}, h, blind=refused("value", SCORE)),
    "half_normal": Problem({"scale": [0.9, 0.6, 1.1]}, quadrature(lambda s: stats.halfnorm(0, s), rise), "rise(x)"),
    "half_cauchy": Problem({"scale": [0.4, 0.6, 1.1]}, quadrature(lambda s: stats.halfcauchy(0, s), rise), "rise(x)"),
    "log_normal": Problem(
        {"loc": [-1.0, 1.2, -0.8], "scale": [0.5, 0.6, 0.8]},
        quadrature(lambda m, s: stats.lognorm(s, 0, np.exp(m)), rise), "rise(x)",
    ),
    "exponential": Problem({"rate": [1.5, 0.7, 2.0]}, quadrature(lambda r: stats.expon(0, 1 / r), rise), "rise(x)"),
    "gamma": Problem(
        {"shape": [2.5, 0.7, 4.0], "rate": [1.5, 0.7, 2.0]},
        quadrature(lambda a, r: stats.gamma(a, 0, 1 / r), rise), "rise(x)",
        blind=refused("shape", "mvd"),
    ),
    "inverse_gamma": Problem(
        {"shape": [2.5, 1.7, 4.0], "scale": [1.5, 0.7, 2.0]},
        quadrature(lambda a, s: stats.invgamma(a, 0, s), rise), "rise(x)",
        blind=refused("shape", "mvd"),
    ),
    "uniform": Problem(
        {"low": [-0.4, 0.2, -1.0], "high": [1.5, 0.9, 0.3]},
        quadrature(lambda a, b: stats.uniform(a, b - a)),
        blind=refused("low high", SCORE),
    ),
    "beta": Problem({"a": [0.7, 2.0, 1.5], "b": [1.2, 3.0, 1.8]}, quadrature(stats.beta, rise), "rise(x)"),
    "truncated_normal": Problem(
        {"loc": [0.3, -0.2, 0.5], "scale": [0.9, 0.7, 1.2], "low": [-0.5, -1.0, 0.2], "high": [1.1, 0.6, 2.0]},
        quadrature(lambda m, s, a, b: stats.truncnorm((a - m) / s, (b - m) / s, m, s)),
        blind=refused("low high", SCORE),
    ),
    "von_mises": Problem(
        {"loc": [0.4, -0.8, 2.0], "concentration": [1.5, 0.8, 3.0]},
        lambda m, k: np.sin(m) * special.iv(1, k) / special.iv(0, k) + 0.5 * np.cos(2 * m) * special.iv(2, k) / special.iv(0, k),
        loss="angle(x)",
    ),
    "dirichlet": Problem({"concentration": [2 * s for s in SHARES]}, dirichlet_mean, "shares(x)"),
    "mvn_diag": Problem(
        {"loc": LOC, "scale": NOISE}, lambda m, s: waves_mean(m, np.diag(s**2)), "waves(x)"
    ),
    "mvn": Problem(
        {"loc": LOC, "root": ROOT}, lambda m, r: waves_mean(m, r @ r.T), "waves(x)", "loc, root @ swapaxes(root, -1, -2)"
    ),
    "mvn_cholesky": Problem(
        {"loc": LOC, "root": ROOT}, lambda m, r: waves_mean(m, np.tril(r) @ np.tril(r).T), "waves(x)", "loc, tril(root)"
    ),
    "mvn_precision": Problem(
        {"loc": LOC, "root": ROOT}, lambda m, r: waves_mean(m, np.linalg.inv(r @ r.T)), "waves(x)", "loc, root @ swapaxes(root, -1, -2)"
    ),
    "mvn_lowrank": Problem(
        {"loc": LOC, "factor": WIDE, "noise": NOISE}, lambda m, f, d: waves_mean(m, f @ f.T + np.diag(d)), "waves(x)"
    ),
    "lkj_cholesky": Problem({"c": [1.5]}, lkj_mean, "correlations(x)", "3, c", batched=False),
    "bernoulli": Problem({"p": [0.3, 0.6, 0.8]}, lambda p: p * h(1.0) + (1 - p) * h(0.0), "h(real(x))", soft="h(x)"),
    "bernoulli_logit": Problem(
        {"logit": [-0.5, 0.3, 1.0]}, lambda l: h(0.0) + special.expit(l) * (h(1.0) - h(0.0)), "h(real(x))", soft="h(x)"
    ),
    "categorical": Problem({"p": SHARES}, categorical_mean, "table(x)", soft="mixed(x)"),
    "categorical_logit": Problem(
        {"logits": LOGITS}, lambda l: categorical_mean(special.softmax(l)), "table(x)", soft="mixed(x)"
    ),
    "markov_chain": Problem(
        {"initial": STARTS, "transition": [STEPS, -STEPS, 0.5 * STEPS]}, chain_mean, "word(x)", "initial, transition, 3"
    ),
    "binomial": Problem({"p": [0.3, 0.6, 0.2]}, summed(lambda p: stats.binom(4, p)), "rise(real(x))", "4, p"),
    "geometric": Problem({"p": [0.4, 0.6, 0.7]}, summed(lambda p: stats.geom(p, -1)), "rise(real(x))"),
    "poisson": Problem({"rate": [0.8, 1.5, 0.4]}, summed(stats.poisson), "rise(real(x))"),
    "negative_binomial": Problem(
        {"count": [1.5, 0.7, 3.0], "p": [0.5, 0.4, 0.8]}, summed(stats.nbinom), "rise(real(x))", blind=refused("count", "mvd")
    ),
    "multinomial": Problem({"p": SHARES}, multinomial_mean, "counts(x)", "4, p"),
    "mixture": Problem(
        {"logits": STARTS, "loc": LOC, "scale": NOISE}, mixture_mean, "h(x)", "logits, normal(loc, scale)"
    ),
}  # fmt: skip


# What the biased strategies estimate instead: (value, gradient) of one element


def probabilities(name: str, theta: Any) -> Any:
    """The probabilities of the values of a choice."""
    match name:
        case "bernoulli":
            return np.stack([1 - theta, theta])
        case "bernoulli_logit":
            return np.stack([special.expit(-theta), special.expit(theta)])
        case "categorical":
            return theta / theta.sum()
    return special.softmax(theta)


def soft_loss(x: Any) -> Any:
    """The loss of relaxed parts on the first axis: h of the last of two, or `mixed`."""
    if len(x) == 2:
        return h(x[1])
    return 0.8 * x[0] - 0.5 * x[1] + 0.3 * x[2] + x[0] * x[1] + x[0] * x[0] * x[2]


def soft_slopes(x: Any) -> Any:
    """The derivatives of `soft_loss` by the parts."""
    steps = 1e-5 * np.eye(len(x))
    return np.array([(soft_loss(x + s) - soft_loss(x - s)) / 2e-5 for s in steps])


def relaxed_mean(name: str, theta: Any, tau: float = 0.5) -> float:
    """The mean of the loss of softmax((log p + gumbel) / tau), by the midpoint rule: differences
    d of gumbel numbers from the last one have density (k - 1)! exp(-sum d) / (1 + sum exp(-d))^k.
    """
    p = probabilities(name, theta)
    step = 0.2
    axis = np.arange(-30, 30, step) + step / 2
    d = np.stack(np.meshgrid(*[axis] * (len(p) - 1), indexing="ij"))
    density = special.factorial(len(p) - 1) * np.exp(
        -d.sum(0) - len(p) * np.log1p(np.exp(-d).sum(0))
    )
    full = np.concatenate([d, np.zeros_like(d[:1])]) + np.log(p).reshape(-1, *[1] * len(d))
    return float((density * soft_loss(special.softmax(full / tau, axis=0))).sum() * step ** len(d))


def straight_through_gradient(name: str, theta: Any) -> Any:
    p, by = probabilities(name, theta), slopes(lambda t: probabilities(name, t), theta)
    return sum(q * soft_slopes(z) @ by for q, z in zip(p, np.eye(len(p))))


def reinmax_gradient(name: str, theta: Any) -> Any:
    p, by = probabilities(name, theta), slopes(lambda t: probabilities(name, t), theta)
    total = 0.0
    for q, z in zip(p, np.eye(len(p))):
        m = 0.5 * (z + p)
        soft = 2 * (np.diag(m) - np.outer(m, m)) @ (by / p.reshape(-1, *[1] * (by.ndim - 1)))
        total += q * soft_slopes(z) @ (soft - 0.5 * by)
    return total


def slopes(f: Callable[[Any], Any], x: Any) -> Any:
    """The derivatives of f by the elements of x, on the last axes."""
    x = np.asarray(x, float)
    out = []
    for i in np.ndindex(*x.shape):
        s = np.zeros_like(x)
        s[i] = 1e-3 * max(1.0, abs(x[i])) * (0.3 if 0 < x[i] < 1 else 1)
        out.append((8 * (f(x + s) - f(x - s)) - f(x + 2 * s) + f(x - 2 * s)) / (12 * s[i]))
    return np.moveaxis(np.array(out), 0, -1).reshape((*np.shape(out[0]), *x.shape))


def expected(name: str, strategy: str, element: int) -> tuple[float, dict[str, Any]]:
    """(mean loss, gradient by each parameter) that a strategy estimates for one element."""
    problem = PROBLEMS[name]
    values = {n: v[element] for n, v in problem.parameters.items()}
    mean = problem.mean
    if strategy in BIASED:
        ((parameter, theta),) = values.items()
        if strategy == "gumbel":
            mean = lambda t: relaxed_mean(name, t)
        else:
            own = {"straight_through": straight_through_gradient, "reinmax": reinmax_gradient}
            return mean(theta), {parameter: own[strategy](name, np.asarray(theta))}
    out = {}
    for n, v in values.items():
        if (strategy, n) in problem.blind:
            out[n] = np.zeros_like(np.asarray(v, float))
        else:
            out[n] = slopes(lambda x, n=n: mean(*(values | {n: x}).values()), v)
    return mean(*values.values()), out


def expected_batch(name: str, strategy: str) -> tuple[float, dict[str, Any]]:
    """The same for F of a batch of three."""
    each = [expected(name, strategy, i) for i in range(3)]
    m = np.array([value for value, _ in each])
    outer = slopes(F, m)
    names = PROBLEMS[name].parameters
    return F(m), {n: np.stack([outer[i] * each[i][1][n] for i in range(3)]) for n in names}


# The estimates


def _declared() -> tuple[dict[str, syntax.DistributionDecl], dict[str, syntax.FunctionDecl]]:
    prelude = compile_text("model m(): return 0.0\n").main.prelude
    decls = {n: d for home in prelude for n, d in home.declarations.items()}
    return (
        {n: d for n, d in decls.items() if isinstance(d, syntax.DistributionDecl)},
        {
            n: d
            for n, d in decls.items()
            if isinstance(d, syntax.FunctionDecl) and d.kind == "strategy"
        },
    )


DISTRIBUTIONS, STRATEGIES = _declared()
BIASED = [n for n, d in STRATEGIES.items() if d.decorators]
PAIRS = [(d, s) for d in DISTRIBUTIONS for s in STRATEGIES if fits(STRATEGIES[s], DISTRIBUTIONS[d])]


def usable(name: str) -> list[str]:
    """The strategies that have a derivative by some parameter of a distribution."""
    blind = PROBLEMS[name].blind
    return [
        s
        for d, s in PAIRS
        if d == name and any((s, p) not in blind for p in PROBLEMS[name].parameters)
    ]


def objective(name: str, strategy: str, batched: bool, seen: str = "") -> str:
    """An objective of a choice by a strategy; it differentiates by blind parameters if `seen`."""
    problem = PROBLEMS[name]
    lead = (3,) if batched else ()
    typed = ", ".join(
        f"{n}: real{[*lead, *np.shape(v[0])] or ''}" for n, v in problem.parameters.items()
    )
    hidden = [p for s, p in problem.blind if s == strategy and p != seen]
    lines = [f"objective by_{strategy}({typed}):"]
    lines += [f"    {p} = stop_gradient({p})" for p in hidden]
    loss = problem.soft if strategy in BIASED else problem.loss
    lines += [f"    xs ~ {name}({problem.made or ', '.join(problem.parameters)}) by {strategy}"]
    if batched:
        lines += [f"    return F([{loss} for x in xs])"]
    else:
        lines += ["    x = xs", f"    return {loss}"]
    return "\n".join(lines) + "\n"


def text(name: str, batched: bool) -> str:
    """`estimates(parameters, keys)`: by strategy, the values and gradients for every key."""
    names = ", ".join(PROBLEMS[name].parameters)
    wrt = tuple(range(len(PROBLEMS[name].parameters)))
    each = ", ".join(
        f"{s}: map(lambda k: value_and_grad(by_{s}, {names}, k, wrt={wrt}), keys)"
        for s in usable(name)
    )
    objectives = "".join(objective(name, s, batched) for s in usable(name))
    return f"{LOSSES}{objectives}fn estimates({names}, keys: key[n]): return {{{each}}}\n"


def arguments(name: str, batched: bool) -> list[Any]:
    values = PROBLEMS[name].parameters.values()
    return [np.asarray(v if batched else v[0], float) for v in values]


@dataclass
class Sums:
    """Of numbers and their squares, by strategy and place."""

    count: int = 0
    first: dict[Any, Any] = field(default_factory=dict)
    second: dict[Any, Any] = field(default_factory=dict)

    def add(self, each: dict[Any, Any]) -> None:
        self.count += len(next(iter(each.values())))
        for at, x in each.items():
            self.first[at] = self.first.get(at, 0.0) + x.sum(0)
            self.second[at] = self.second.get(at, 0.0) + (x * x).sum(0)

    def mean(self, at: Any) -> Any:
        return self.first[at] / self.count

    def error(self, at: Any) -> Any:
        """The standard error of the mean."""
        variance = self.second[at] / self.count - self.mean(at) ** 2
        return np.sqrt(np.maximum(variance, 0) / (self.count - 1))


def flat(name: str, out: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Results by (strategy, "value" or parameter)."""
    found = {}
    for s, (value, grads) in out.items():
        found[s, "value"] = np.asarray(value, float)
        for n, g in zip(PROBLEMS[name].parameters, grads, strict=True):
            found[s, n] = np.asarray(g, float)
    return found


def chunks(count: int) -> Iterator[Any]:
    for i in range(count):
        yield split_key(wg.key(i), CHUNK)


def check(name: str, batched: bool, bias: float) -> int:
    """Average the estimates of all strategies until they are precise, and compare; the draws."""
    wanted = {}
    for s in usable(name):
        value, grads = expected_batch(name, s) if batched else expected(name, s, 0)
        wanted |= {(s, "value"): value} | {(s, n): g for n, g in grads.items()}
    program = wg.compile(text(name, batched), real="f64")
    sums = Sums()
    allowed = {at: bias / POWER * np.linalg.norm(g) for at, g in wanted.items() if at[1] != "value"}
    allowed = {at: most for at, most in allowed.items() if at not in PROBLEMS[name].blind}
    for keys in chunks(MOST):
        sums.add(flat(name, program.estimates(*arguments(name, batched), keys)))
        if all((sums.error(at) <= most).all() for at, most in allowed.items()):
            break
    else:
        bad = {at: float((sums.error(at) / m).max()) for at, m in allowed.items()}
        pytest.fail(f"{MOST} chunks are too few: {bad}")
    for at, want in wanted.items():
        got, error = sums.mean(at), sums.error(at)
        assert (np.abs(got - want) <= 4.5 * error + 1e-7).all(), (at, got, want, error)
    return sums.count


SHAPES = [(n, b) for n, p in PROBLEMS.items() for b in (False, True) if p.batched or not b]


@pytest.mark.parametrize(("name", "batched"), SHAPES)
def test_estimates_have_the_exact_mean(name: str, batched: bool) -> None:
    check(name, batched, 2 * BIAS if batched else BIAS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batched"), SHAPES)
def test_estimates_have_the_exact_mean_more_precisely(name: str, batched: bool) -> None:
    check(name, batched, 2 * SLOW_BIAS if batched else SLOW_BIAS)


def check_xla(name: str, batched: bool) -> None:
    """XLA's estimates are those of LLVM for the same keys."""
    keys = split_key(wg.key(1), 100)
    found = [
        flat(
            name,
            wg.compile(text(name, batched), real="f64", backend=backend).estimates(
                *arguments(name, batched), keys
            ),
        )
        for backend in ("llvm", "xla")
    ]
    for at, x in found[0].items():
        np.testing.assert_allclose(found[1][at], x, rtol=1e-6, atol=1e-9, err_msg=str(at))


QUICK = [
    "normal",
    "cauchy",
    "exponential",
    "uniform",
    "mvn",
    "bernoulli",
    "categorical",
    "geometric",
]


@pytest.mark.parametrize("name", QUICK)
def test_xla_estimates_the_same(name: str) -> None:
    """One distribution of each kind; the slow test has the rest."""
    check_xla(name, batched=False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batched"), [s for s in SHAPES if s[1] or s[0] not in QUICK])
def test_xla_estimates_the_same_everywhere(name: str, batched: bool) -> None:
    check_xla(name, batched)


# The pairs


def test_every_pair_has_an_exact_derivative_to_compare_with() -> None:
    """A new distribution or strategy needs a problem here."""
    assert set(DISTRIBUTIONS) == set(PROBLEMS)
    for name, problem in PROBLEMS.items():
        floats = [p for p in DISTRIBUTIONS[name].parameters if _is_real(p)]
        assert problem.made or [p.name for p in floats] == list(problem.parameters), name
    for name, strategy in PAIRS:
        refused = {p for s, p in PROBLEMS[name].blind if s == strategy}
        assert strategy in usable(name) or refused == set(PROBLEMS[name].parameters)
    refusing = {(s, n) for n, p in PROBLEMS.items() for s, _ in p.blind}
    assert refusing <= {(s, n) for n, s in PAIRS}
    assert len(PAIRS) > 120  # the search for them works


def _is_real(parameter: syntax.Parameter) -> bool:
    annotation = parameter.annotation
    return isinstance(annotation, syntax.NamedType) and annotation.name == "real"


BLIND = [(n, s, p) for n, problem in PROBLEMS.items() for s, p in sorted(problem.blind)]


@pytest.mark.parametrize(("name", "strategy", "parameter"), BLIND)
def test_parameters_without_a_derivative_are_refused(
    name: str, strategy: str, parameter: str
) -> None:
    """Where a gradient by them is asked for; their estimates are fine."""
    program = wg.compile(objective(name, strategy, False, parameter) + LOSSES, real="f64")
    estimate = getattr(program, f"by_{strategy}")
    assert np.isfinite(estimate(*arguments(name, False), key=wg.key(0)))
    with pytest.raises(WengertError, match=f"'{parameter}'.*{strategy}") as caught:
        estimate.grad(*arguments(name, False), key=wg.key(0), wrt=parameter)
    assert type(caught.value).__name__ == "EstimatorMistake"
    assert "stop_gradient" in str(caught.value) and "^" in str(caught.value)


# Biased strategies: how far their expectations are from the gradient here, as a share of it. That
# they have these expectations is what the tests above say.


def documented() -> dict[tuple[str, str], float]:
    """The numbers in docs/vi.md, by distribution and strategy."""
    page = (Path(__file__).parents[2] / "docs" / "vi.md").read_text()
    head, _, *rows = re.search(r"^\| \| `gumbel.*?\n\n", page, re.M | re.S).group().split("\n")[:-2]
    names = re.findall(r"`(\w+)", head)
    found = {}
    for row in rows:
        name, *numbers = re.findall(r"[\w.]+", row)
        found |= {(name, s): float(x) for s, x in zip(names, numbers, strict=True)}
    return found


@pytest.mark.parametrize(("name", "strategy"), [p for p in PAIRS if p[1] in BIASED])
def test_biased_strategies_are_biased_by_no_more_than_documented(name: str, strategy: str) -> None:
    (got,), (want,) = (expected(name, s, 0)[1].values() for s in (strategy, "enum"))
    bias = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert {p for p in PAIRS if p[1] in BIASED} == {*documented()}
    most = documented()[name, strategy]
    assert 0.6 * most < bias <= most


def test_reinmax_is_exact_for_quadratic_losses() -> None:
    """And straight-through is not (Liu et al. 2023, theorem 3.1)."""
    names = ("reinmax", "straight_through")
    made = "".join(
        f"objective {s}(l: real[3]):\n    x ~ categorical_logit(l) by {s}\n"
        "    return x[0] * x[1] - 0.5 * x[2]^2 + x[0]\n"
        for s in names
    )
    each = ", ".join(f"map(lambda k: grad({s}, l, k), keys)" for s in names)
    program = wg.compile(f"{made}fn both(l: real[3], keys: key[n]): return {each}\n", real="f64")
    found = program.both(LOGITS[0], split_key(wg.key(0), 200_000))
    p, losses = special.softmax(LOGITS[0]), np.array([1.0, 0.0, -0.5])
    off = [(x.mean(0) - p * (losses - p @ losses)) * np.sqrt(len(x)) / x.std(0) for x in found]
    assert np.abs(off[0]).max() < 4.5
    assert np.abs(off[1]).max() > 20


# Options, and other ways to ask


def test_options() -> None:
    """Baselines and more samples leave the mean and take variance away; tau is a trade-off."""
    lines = {
        "plain": "reinforce",
        "based": "reinforce(baseline=b)",
        "two": "reinforce_loo",
        "eight": "reinforce_loo(samples=8)",
    }
    made = "".join(
        f"objective {n}(p: real, b: real):\n    x ~ bernoulli(p) by {by}\n    return 3.0 + real(x)^2\n"
        for n, by in lines.items()
    )
    each = ", ".join(f"{n}: map(lambda k: grad({n}, p, b, k), keys)" for n in lines)
    program = wg.compile(
        f"{made}fn all_of(p: real, b: real, keys: key[n]): return {{{each}}}\n", real="f64"
    )
    found = program.all_of(0.3, 3.3, split_key(wg.key(0), 40_000))
    for x in found.values():
        assert abs(x.mean() - 1.0) < 4.5 * x.std() / np.sqrt(len(x))
    deviations = [found[n].std() for n in ("plain", "two", "eight", "based")]
    assert deviations[0] > 3 * deviations[1] > 3 * deviations[2]
    assert deviations[0] > 5 * deviations[3]
    with pytest.raises(WengertError, match="needs two samples"):
        wg.compile(
            "objective f(p: real):\n    x ~ bernoulli(p) by reinforce_loo(samples=1)\n    return real(x)\n"
        ).f(0.3, key=wg.key(0))


@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_means_over_samples(backend: str) -> None:
    """`samples=` from Python averages the same estimator."""
    strategies = usable("normal")
    source = LOSSES + "".join(objective("normal", s, True) for s in strategies)
    program = wg.compile(source, real="f64", backend=backend)
    for s in strategies:
        value, grads = expected_batch("normal", s)
        f = getattr(program, f"by_{s}")
        means = [
            f.value_and_grad(
                *arguments("normal", True), key=wg.key(i), samples=5000, wrt=("loc", "scale")
            )
            for i in range(16)
        ]
        for got, want in (
            (np.array([m[0] for m in means]), value),
            *((np.array([m[1][i] for m in means]), g) for i, g in enumerate(grads.values())),
        ):
            error = got.std(0, ddof=1) / 4
            assert (np.abs(got.mean(0) - want) < 6 * error).all()  # 15 degrees of freedom: 2e-5


@pytest.mark.parametrize("name", PROBLEMS)
def test_densities_raise_no_alarm(name: str) -> None:
    """Support masks and loops in densities and samplers decide nothing about the gradient of
    E[log p(x)] (passes/pathwise.py); all strategies in one objective.
    """
    problem = PROBLEMS[name]
    given = problem.made or ", ".join(problem.parameters)
    lines = [objective(name, usable(name)[0], False).splitlines()[0]]
    for i, s in enumerate(usable(name)):
        own = given
        for _, p in problem.blind & frozenset(product([s], problem.parameters)):
            own = own.replace(p, f"stop_gradient({p})")
        lines.append(f"    x{i} ~ {name}({own}) by {s}")
    terms = [f"logpdf({name}({given}), x{i})" for i in range(len(usable(name)))]
    program = wg.compile("\n".join([*lines, f"    return {' + '.join(terms)}\n"]), real="f64")
    f = getattr(program, f"by_{usable(name)[0]}")
    dump = f.ir(*arguments(name, False), key=wg.key(0), derivative="grad", after="estimators")
    assert "prob." not in dump
