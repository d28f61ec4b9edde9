"""Values are compared exactly: no tiny number is taken for another one, and every exact notation of a value is right."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from efficient_rl.rewards.notation import judgeable, plain
from efficient_rl.rewards.numerals import read_quantity
from efficient_rl.rewards.verify import math

TINY = "\\frac{1}{2^{99}}"
OTHER = "\\frac{1}{2^{98}}"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (OTHER, TINY),
        ("-\\frac1{2^{98}}", "\\frac1{2^{99}}"),
        (f"-{TINY}", TINY),
        ("10^{-20}", "\\frac1{2^{2018}}"),
        ("\\frac1{20!}", "\\frac1{21!}"),
        (f"({OTHER},3)", f"({TINY},3)"),
        (f"(3, {OTHER}]", f"(3, {TINY}]"),
        (f"\\{{{OTHER}, 1\\}}", f"\\{{{TINY}, 1\\}}"),
        (f"x < {OTHER}", f"x < {TINY}"),
        (f"y={OTHER}", f"y={TINY}"),
        (f"y=x+{OTHER}", f"y=x+{TINY}"),
        (f"y - x = {OTHER}", f"y = x+{TINY}"),
        (f"{OTHER} x + y = 1", f"{TINY} x + y = 1"),
        (f"{OTHER} x", f"{TINY} x"),
        (f"\\sin(x) + {OTHER}", f"\\sin(x) + {TINY}"),
        (f"\\begin{{pmatrix}} {OTHER} & 0 \\end{{pmatrix}}", f"\\begin{{pmatrix}} {TINY} & 0 \\end{{pmatrix}}"),
        (f"1 + {OTHER} i", f"1 + {TINY} i"),
        (f"i {OTHER}", f"i {TINY}"),
        (f"\\sqrt{{2}} + {OTHER}", "\\sqrt{2}"),
        (f"\\sqrt{{2}} \\cdot {OTHER}", f"\\sqrt{{2}} \\cdot {TINY}"),
        (f"\\pi^{{{OTHER}}}", f"\\pi^{{{TINY}}}"),
        ("e^{-98}", "e^{-99}"),
        ("e^{-998}", "-e^{-998}"),
        ("\\pi + e^{-500}", "\\pi"),
        ("\\pi \\tanh(900)", "\\pi"),
        ("\\ln(1 + 10^{-40})", "\\ln(1 + 10^{-41})"),
        ("\\cos(10^{-30})", "\\cos(0)"),
        ("(\\sqrt{2}-1)^{90}", "(\\sqrt{2}-1)^{91}"),
        ("\\frac{\\sqrt{2}}{10^{500}}", "\\frac{\\sqrt{3}}{10^{500}}"),
        ("10^{-999}", "10^{-998}"),
        ("2^{-999} \\cdot 3^{-999}", "2^{-999} \\cdot 3^{-998}"),
        ("0.00000000000000000001", "\\frac{1}{2^{67}}"),
        ("0", TINY),
        ("0", "\\sqrt{2} \\cdot 10^{-50}"),
        ("\\pi + 0.00000000000000000001", "\\pi"),
        ("e^{\\pi\\sqrt{163}}", "640320^3 + 744"),
        ("\\gcd(\\frac{1}{2^{98}}, \\frac{1}{2^{98}}) \\pi", f"{TINY} \\pi"),
        ("1000(24)", "2^{10}"),
        ("7\\binom{9}{4}", "133\\binom{2}{2}"),
        # 0/0 in disguise has no value, so it is not the wanted one
        ("\\frac{\\sqrt{3+2\\sqrt{2}}-1-\\sqrt{2}}{\\sqrt{5+2\\sqrt{6}}-\\sqrt{2}-\\sqrt{3}}", "\\sqrt{7}"),
        ("(\\sqrt{3+2\\sqrt{2}}-1-\\sqrt{2}) (x + y) = 0", "x + y = 7"),
    ],
)
def test_a_wrong_value_is_wrong_however_small_the_difference(answer: str, gold: str) -> None:
    assert math(answer, {"answer": gold}) is False


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("\\frac{2}{2^{100}}", TINY),
        ("2^{-99}", TINY),
        ("2 \\cdot 2^{-100}", f"{TINY}"),
        ("\\frac1{20! \\cdot 21}", "\\frac1{21!}"),
        (f"({TINY}, 3)", "(2^{-99}, 3)"),
        ("y=\\frac{2}{2^{100}}", f"y={TINY}"),
        ("2y = 2x + 2^{-98}", f"y = x+{TINY}"),
        ("\\frac{2x}{2^{100}}", f"{TINY} x"),
        ("\\begin{pmatrix} 2^{-99} & 0 \\end{pmatrix}", f"\\begin{{pmatrix}} {TINY} & 0 \\end{{pmatrix}}"),
        ("1 + 2^{-99} i", f"1 + {TINY} i"),
        ("\\sqrt{3 + 2\\sqrt{2}}", "1 + \\sqrt{2}"),
        ("x\\sqrt{3 + 2\\sqrt{2}}", "x + x\\sqrt{2}"),
        ("\\sqrt{5+2\\sqrt{6}} \\cdot 10^{-300}", "10^{-300}(\\sqrt{2}+\\sqrt{3})"),
        ("\\frac{1}{4}\\cdot(\\sqrt{5}+1)", "\\cos\\frac{\\pi}{5}"),
        ("\\ln 6 - \\ln 2", "\\ln 3"),
        ("\\frac{\\ln 9}{\\ln 3} \\pi", "2\\pi"),
        ("4\\arctan 1", "\\pi"),
        ("16\\arctan\\frac15 - 4\\arctan\\frac1{239}", "\\pi"),
        ("\\sqrt[3]{2+\\sqrt{5}} + \\sqrt[3]{2-\\sqrt{5}}", "\\sqrt[3]{2+\\sqrt{5}} + \\sqrt[3]{2-\\sqrt{5}}"),
        ("\\sin^4x+\\cos^4x", "1-\\frac12\\sin^2(2x)"),
        ("\\frac{\\sqrt{6}-\\sqrt{2}}{4}", "\\sin\\frac{\\pi}{12}"),
        ("(1+\\sqrt{-1})^{8} \\pi", "16\\pi"),
        ("\\frac{1+\\sqrt{-1}}{1-\\sqrt{-1}}", "\\sqrt{-1}"),
        ("e^{2+3}", "e^5"),
        ("0.5\\pi", "\\frac{\\pi}{2}"),
        ("512(2)", "2^{10}"),
        ("7\\binom{9}{4}", "\\frac{7 \\cdot 9!}{4! 5!}"),
        ("\\log_2(8) + 3(x+1)^2(2)", "6x^2 + 12x + 9"),
        ("\\int_0^1 x dx \\cdot \\pi", "\\int_0^1 \\frac{\\pi}{2} dx"),
    ],
)
def test_another_exact_notation_of_the_same_value_is_right(answer: str, gold: str) -> None:
    assert math(answer, {"answer": gold}) is True


NUMERALS = st.integers(2, 10**6)
EXPONENTS = st.integers(1, 300)
FACTORS = st.one_of(
    st.tuples(NUMERALS, NUMERALS).map(lambda pair: f"\\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.tuples(st.integers(2, 99), EXPONENTS).map(lambda pair: f"{pair[0]}^{{{pair[1]}}}"),
    st.tuples(st.integers(2, 99), EXPONENTS).map(lambda pair: f"{pair[0]}^{{-{pair[1]}}}"),
    st.integers(2, 40).map(lambda number: f"\\frac{{1}}{{{number}!}}"),
    NUMERALS.map(lambda number: f"\\sqrt{{{number}}}"),
    NUMERALS.map(lambda number: f"\\sqrt[3]{{{number}}}"),
    NUMERALS.map(lambda number: f"\\ln({number})"),
    st.integers(3, 40).map(lambda number: f"\\sin\\frac{{\\pi}}{{{number}}}"),
    EXPONENTS.map(lambda number: f"e^{{-{number}}}"),
    st.sampled_from(["\\pi", "e", "\\log_2 3", "(1+\\sqrt{2})", "\\arctan(7)", "\\sqrt[5]{3}", "\\cos(1)"]),
)
PRODUCTS = st.lists(FACTORS, min_size=1, max_size=3).map(" \\cdot ".join)
POSITIVE = st.lists(PRODUCTS, min_size=1, max_size=2).map(" + ".join)
ALIKE = (
    "\\frac{{7({})}}{{7}}",
    "({}) + \\pi - \\pi",
    "\\frac{{1}}{{\\frac{{1}}{{{}}}}}",
    "2({}) - ({})",
    "\\sqrt{{2}} \\cdot \\frac{{{}}}{{\\sqrt{{2}}}}",
)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(POSITIVE, PRODUCTS, st.sampled_from(["+", "-"]))
def test_no_exact_change_of_an_exact_value_is_right_whatever_the_sizes(value: str, change: str, sign: str) -> None:
    changed = f"({value}) \\cdot (1 {sign} {change})"
    assume(read_quantity(plain(value)) is None and judgeable(changed, value))
    assert math(changed, {"answer": value}) is False


@settings(max_examples=20, deadline=None)
@given(POSITIVE, st.sampled_from(ALIKE))
def test_an_exact_value_is_right_in_another_notation_whatever_its_size(value: str, notation: str) -> None:
    alike = notation.format(value, value)
    assume(read_quantity(plain(value)) is None and judgeable(alike, value))
    assert math(alike, {"answer": value}) is True
