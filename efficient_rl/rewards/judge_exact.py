"""Whether two LaTeX expressions are equal: parsed by math-verify, compared exactly."""

import re
from collections import defaultdict
from dataclasses import replace
from itertools import repeat
from typing import Any

import sympy
from antlr4.atn.ParserATNSimulator import ParserATNSimulator
from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended import latex2sympy2
from math_verify import LatexExtractionConfig, grader, parse, verify
from sympy.core.evalf import dps_to_prec
from sympy.core.function import AppliedUndef
from sympy.functions.elementary.hyperbolic import HyperbolicFunction

from efficient_rl.rewards.judge_bounds import learning

FACTOR = re.compile(r"(?<![\d_^.\\A-Za-z])(\d+)\s*(?=\(|\\binom)", re.ASCII)
TIMES = r"\1 \\cdot "
MARGIN = 10  # digits that rounding may spoil
DIGITS = 100  # that two constants have in common, beyond those written in them, if they are equal
MAX_DIGITS = 5000
POINT_DIGITS = 30  # that tell most wrong formulas from right ones
NOT_NUMERIC = (
    sympy.nan,
    sympy.oo,
    sympy.zoo,
    sympy.Integral,
    sympy.Sum,
    sympy.Product,
    sympy.Limit,
    sympy.Derivative,
    AppliedUndef,
)
EXPONENTIAL = (sympy.exp, HyperbolicFunction, sympy.gamma, sympy.factorial)


def same(answer: str, gold: str) -> bool:
    """Whether two LaTeX expressions are equal; decimals are exact, never roots.

    math-verify's own removal of units is off: it takes `2t` for 2. A number before a bracket or a
    binomial is a factor; math-verify adds whole ones, as those of `3 \\frac12`.
    """
    form = replace(LatexExtractionConfig().normalization_config, units=False)
    read = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=form)]
    parsed = [
        parse(rf"\boxed{{{FACTOR.sub(TIMES, text)}}}", read, fallback_mode="no_fallback", parsing_timeout=None)
        for text in (gold, answer)
    ]
    if not all(parsed):
        return False
    wanted, given = parsed[0][0], parsed[1][0]
    if proportional(wanted, given):
        return True
    return bool(verify(wanted, given, timeout_seconds=None))


def predict_locally() -> None:
    """Let math-verify's parser predict without the whole context (SLL), which is four times faster.

    A tree that it finds so is the right one; only where it finds none, the context is needed (LL).
    Two-stage parsing: Parr, Harwell and Fisher, "Adaptive LL(*) Parsing", OOPSLA 2014. What the
    parser learns from a text is counted apart: a worker that read one like it needs none of it.
    """
    create = latex2sympy2._Latex2Sympy.create_parser

    def create_parser(self: Any, latex: str) -> Any:
        parser = create(self, latex)
        parser._interp.predictionMode = PredictionMode.SLL
        find_tree = parser.math

        def math() -> Any:
            try:
                return find_tree()
            except Exception:  # noqa: BLE001  (the only type that math-verify raises at a syntax error)
                return create(self, latex).math()

        parser.math = math
        return parser

    latex2sympy2._Latex2Sympy.create_parser = create_parser
    ParserATNSimulator.computeTargetState = learning(ParserATNSimulator.computeTargetState)


def make_exact() -> None:
    """Replace math-verify's comparisons with an absolute tolerance for the rest of this process."""
    grader.sympy_numeric_eq = same_values
    grader.sympy_symbolic_eq = lambda *_: False  # same_values has the last word
    latex2sympy2.sympy.nsimplify = evaluated  # of arguments of gcd and lcm


def proportional(gold: Any, answer: Any) -> bool:
    """Whether two equations are the same but for a factor, far sooner than by solving them."""
    if not (isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq)):
        return False
    difference = sympy.expand(gold.lhs - gold.rhs)
    if difference == 0:
        return False
    factor = sympy.cancel(sympy.expand(answer.lhs - answer.rhs) / difference)
    if not factor.is_number:
        return False
    found = parts(factor, DIGITS + written_digits(factor))
    return found is not None and found != (0, 0)


def same_values(gold: Any, answer: Any, *_: Any) -> bool:
    """Whether two numbers, formulas or matrices are equal, in place of `grader.sympy_numeric_eq`.

    Rational numbers are compared exactly, other constants to DIGITS digits more than are written
    in them, relative to their size; formulas with letters by their coefficients, or simplified.
    """
    matrices = (sympy.MatrixBase, sympy.MatrixExpr)
    if isinstance(gold, matrices) or isinstance(answer, matrices):
        return same_matrices(evaluated(gold), evaluated(answer))
    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return False
    bare = [grader.get_pct_val(value, value) for value in (gold, answer)]
    if all(value.is_Integer for value in bare) and bare != [gold, answer]:
        return bool(bare[0] == bare[1])
    gold, answer = evaluated(gold), evaluated(answer)
    if gold == answer:
        return True
    if differ_at_a_point(gold, answer):
        return False
    if gold.free_symbols or answer.free_symbols:
        return vanishes(gold - answer)
    return same_constants(gold, answer)


def evaluated(value: Any) -> Any:
    """What was parsed, with all that LaTeX left undone; ValueError for giants."""
    return value.doit()


def same_matrices(gold: Any, answer: Any) -> bool:
    """Whether two matrices of one shape have equal entries, or two values are the same formula."""
    explicit = isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase)
    if not explicit or gold.shape != answer.shape:
        return bool(gold == answer)
    return all(map(same_values, gold.flat(), answer.flat()))


def differ_at_a_point(gold: Any, answer: Any) -> bool:
    """Whether two formulas surely have different real values at some point."""
    letters = sorted(gold.free_symbols | answer.free_symbols, key=str)
    point = {letter: sympy.Rational(37 + 6 * place, 31) for place, letter in enumerate(letters)}
    known, given = parts(gold, POINT_DIGITS, point), parts(answer, POINT_DIGITS, point)
    if known is None or given is None or known[1] != 0 or given[1] != 0:
        return False
    return not close(known[0], given[0], POINT_DIGITS)


def close(one: Any, other: Any, digits: int) -> bool:
    """Whether two numbers known to that many digits have the same ones, but for rounding."""
    return bool(abs(one - other) * 10 ** (digits - MARGIN) <= max(abs(one), abs(other)))


def vanishes(difference: Any) -> bool:
    """Whether a formula is 0 whatever its letters are."""
    coefficients = defaultdict(list)
    for term in sympy.Add.make_args(sympy.expand(difference)):
        coefficient, rest = term.as_independent(*difference.free_symbols, as_Add=False)
        coefficients[rest].append(coefficient)
    if all(same_constants(first, -sympy.Add(*others)) for first, *others in coefficients.values()):
        return True
    return sympy.simplify(difference).is_zero is True


def same_constants(gold: Any, answer: Any) -> bool:
    """Whether two expressions without letters are equal by their digits, or else by a proof."""
    if gold.is_Rational and answer.is_Rational:
        return bool(gold == answer)
    digits = DIGITS + written_digits(gold) + written_digits(answer)
    if digits > MAX_DIGITS:
        return False
    known, given = parts(gold, digits), parts(answer, digits)
    if known is None or given is None:
        return sympy.simplify(gold - answer).is_zero is True
    return all(map(close, known, given, repeat(digits)))


def parts(value: Any, digits: int, point: Any = None) -> tuple[Any, Any] | None:
    """The real and the imaginary part, or None where they are not known to that many digits.

    A part is 0 if it is smaller than the other by more than all digits. `point`: values of letters.
    """
    if digits > MAX_DIGITS or value.has(*NOT_NUMERIC):
        return None
    try:
        both = value.evalf(digits, subs=point or None, maxn=3 * digits).as_real_imag()
    except (ArithmeticError, NotImplementedError, TypeError, ValueError):
        return None
    if not all(part.is_Float or part.is_Rational for part in both):
        return None
    smallest = max(map(abs, both)) / 10 ** (digits - MARGIN)
    sure = dps_to_prec(digits - MARGIN)
    found = tuple(part if part.is_Rational or part._prec >= sure else negligible(part, smallest) for part in both)
    return None if None in found else found


def negligible(part: Any, smallest: Any) -> Any:
    """0 for a part without a sure digit that is small beside the other one, else None."""
    return sympy.S.Zero if abs(part) < smallest else None


def written_digits(value: Any) -> int:
    """How many digits an expression without letters has, those of a power times its exponent."""
    if value.is_Rational:
        return int((abs(value.p).bit_length() + value.q.bit_length()) * 0.302) + 1
    if isinstance(value, (sympy.Pow, sympy.exp)):
        base, exponent = value.as_base_exp()
        return (written_digits(base) + 1) * size(exponent) + written_digits(exponent)
    digits = 1 + sum(map(written_digits, value.args))
    if isinstance(value, EXPONENTIAL):
        digits += sum(map(size, value.args))
    return digits


def size(value: Any) -> int:
    """The absolute value of a constant from 1 to MAX_DIGITS; MAX_DIGITS where it is unknown."""
    known = abs(value.evalf(5))
    return max(1, min(MAX_DIGITS, int(known) + 1)) if known.is_comparable else MAX_DIGITS
