"""The text of guides and of their objectives, in the language itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...frontend import syntax
from ...frontend.builtin_table import BUILTIN_NAMES
from ..function import CompiledFunction
from .families import Family
from .problem import Latent, Problem, nested

OWN = (
    "approximation bijectors data draws drawn elbo flows guides joint latents log_joint log_q "
    "logdet onto_u phi run t target terms u y z"
)
RESERVED = BUILTIN_NAMES | set(OWN.split())


def guide_text(problem: Problem, family: Family) -> str:
    """A guide of a family, the log joint density of its numbers, and the objectives."""
    model = problem.model.__name__
    given = Given(problem)
    parts = [
        f"# {family.title} of the model '{model}', written by wg.infer.autoguide.\n"
        "#\n# Its unconstrained numbers u, and the choices that they are mapped to:\n"
        + "\n".join(f"#     {line}" for line in _layout(problem.latents)),
        "\n".join([_import(problem.model, "target"), *(f"import {i}" for i in family.imports)]),
        family.declarations.format(n=problem.size).rstrip(),
        f"""fn latents(u):
    "The parts of u by address."
    return {_record({c.address: _part(c) for c in problem.latents})}""",
        f"""fn joint(u{given.parameters}):
    "The model's trace for u; its score has the log determinant of the map from u."
    return assess({given.model}, {given.data}, latents(u))""",
        f"""fn log_joint(u{given.parameters}) -> real:
    "Log density of u and the data."
    return score(joint(u{given.names}))""",
    ]
    steps = [f"t ~ {family.run}", *family.steps]
    parts += [
        _objective(
            f"elbo(phi{given.parameters})",
            "The evidence lower bound E[log p(u, data) - log q(u)], to be maximised.",
            [*steps, f"return log_joint(u{given.names}) - {family.stopped}"],
        ),
        _objective(
            f"draws(phi{given.parameters})",
            "A draw from the guide, and the log of p(u, data) / q(u) there.",
            [
                *steps,
                f"run = joint(u{given.names})",
                f"return {given.drawn(f'score(run) - {family.density}')}",
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def own_guide_text(
    problem: Problem, guide: CompiledFunction, trained: Sequence[str], others: Sequence[str]
) -> str:
    """The objectives for a guide of a program.

    trained: its parameters to fit, fields of `phi`; others: those that are arguments of the
    model, or else data.
    """
    given = Given(problem)
    same = guide.program is problem.model.program
    imports = [_import(problem.model, "target")]
    imports += [] if same else [_import(guide, "guides")]
    arguments = [f"{n}=phi.{n}" for n in trained]
    arguments += [f"{n}={given.renamed.get(n, f'data.{n}')}" for n in others]
    call = f"{'target' if same else 'guides'}.{guide.__name__}({', '.join(arguments)})"
    known = "{drawn, data}" if problem.observed else "{drawn}"
    steps = [f"drawn ~ {call}", f"run = assess({given.model}, {known})"]
    return (
        "\n\n".join(
            [
                f"# Objectives of the guide '{guide.__name__}' of the model "
                f"'{problem.model.__name__}', written by wg.infer.vi.",
                "\n".join(imports),
                _objective(
                    f"elbo(phi{given.parameters})",
                    "The evidence lower bound E[log p(choices, data) - log q(choices)].",
                    [*steps, "return score(run) - score(drawn)"],
                ),
                _objective(
                    f"draws(phi{given.parameters})",
                    "A draw from the guide, and the log of p(choices, data) / q(choices) there.",
                    [*steps, f"return {given.drawn('score(run) - score(drawn)')}"],
                ),
            ]
        )
        + "\n"
    )


def terms_text(problem: Problem) -> str:
    """The log density of every choice on its own, for numbers u."""
    given = Given(problem)
    addresses = problem.addresses()
    terms = [f'a{i}: score(generate({given.model}, run, "{a}"))' for i, a in enumerate(addresses)]
    return f"""
objective terms(u{given.parameters}):
    "Log densities of the choices, each on its own."
    run = joint(u{given.names})
    return {{{", ".join(terms)}}}
"""


class Given:
    """What every function of a text is given besides its own: the model's arguments, the data.

    parameters, names: these in a signature and in a call, with a comma in front.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.renamed = _renamed(problem.arguments)
        notes = {p.name: p.annotation for p in problem.model.decl.parameters}
        typed = [f"{new}{_static(notes[old])}" for old, new in self.renamed.items()]
        plain = [*self.renamed.values()]
        if problem.observed:
            typed, plain = [*typed, "data"], [*plain, "data"]
        self.parameters = "".join(f", {t}" for t in typed)
        self.names = "".join(f", {t}" for t in plain)
        self.data = "data" if problem.observed else "{}"
        arguments = ", ".join(f"{old}={new}" for old, new in self.renamed.items())
        self.model = f"target.{problem.model.__name__}({arguments})"

    def drawn(self, weight: str) -> str:
        """The record that `draws` returns."""
        run = {c.address: "run." + c.address.replace("/", ".") for c in self.problem.latents}
        fields = [f"choices: {_record(run)}", f"log_weight: {weight}"]
        if self.problem.returns and not self.problem.summed:
            fields.append(f"value: returned(generate({self.model}, run))")
        return "{" + ", ".join(fields) + "}"

    def values(self) -> dict[str, Any]:
        """The arguments and the data by the names that they have in the text."""
        found = {new: self.problem.arguments[old] for old, new in self.renamed.items()}
        return found | ({"data": self.problem.data} if self.problem.observed else {})


def path_of(function: CompiledFunction) -> str:
    """What a text imports the program of a function by."""
    path = function.decl.span.file
    return Path(path).name if Path(path).suffix == ".wg" else path


def _import(function: CompiledFunction, name: str) -> str:
    return f'import "{path_of(function)}" as {name}'


def _renamed(names: Iterable[str]) -> dict[str, str]:
    """New names for those that the text uses itself."""
    used = {*RESERVED}
    out: dict[str, str] = {}
    for name in names:
        new = name
        while new in used:
            new += "_"
        used.add(new)
        out[name] = new
    return out


def _static(note: syntax.TypeExpr | None) -> str:
    return f": static {note.kind}" if isinstance(note, syntax.StaticType) else ""


def _objective(signature: str, doc: str, lines: Sequence[str]) -> str:
    body = "\n    ".join([f'"{doc}"', *lines])
    return f"objective {signature}:\n    {body}"


def _record(values: Mapping[str, str]) -> str:
    return _record_of(nested(values))


def _record_of(values: Mapping[str, Any]) -> str:
    fields = (f"{k}: {v if isinstance(v, str) else _record_of(v)}" for k, v in values.items())
    return "{" + ", ".join(fields) + "}"


def _place(latent: Latent) -> str:
    return f"u[{latent.start}:{latent.stop}]" if latent.free.shape else f"u[{latent.start}]"


def _part(latent: Latent) -> str:
    shape = latent.free.shape
    if len(shape) < 2:
        return _place(latent)
    return f"reshape({_place(latent)}, ({', '.join(map(str, shape))}))"


def _layout(latents: Sequence[Latent]) -> list[str]:
    places, names = [_place(c) for c in latents], [c.address for c in latents]
    wide, long = max(map(len, places)), max(map(len, names))
    return [
        f"{place:<{wide}}  {name:<{long}}  {c.type}, {c.support}"
        for place, name, c in zip(places, names, latents)
    ]
