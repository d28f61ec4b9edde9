"""Units are compared as a whole, magnitudes belong to the value, and both checks read the same notation."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficient_rl.rewards.numerals import parse_number
from efficient_rl.rewards.verify import is_correct

SAME = [  # each line: one quantity in several ways of writing it
    ("45°C", "45^\\circ C", "45^\\circ\\text{C}", "45 degrees Celsius", "45 Celsius", "45\u2103", "45°",
    "45 degrees", "45"),
    ("45°F", "45^{\\circ}\\mathrm{F}", "45 degrees Fahrenheit", "45\u2109", "45\u00ba", "45"),
    ("5 square meters", "5 m^2", "5 m\u00b2", "5 sq m", "5\\text{ m}^2", "5 meters squared", "5 square metres", "5"),
    ("5 cubic feet", "5 ft^3", "5 cu ft", "5 cubic foot", "5"),
    ("5 people per day", "5 people/day", "5 people a day", "5 persons each day", "5"),
    ("60 km/h", "60 km per hour", "60 kph", "60 kilometers per hour", "60 kilometres an hour", "60"),
    ("60 mph", "60 miles per hour", "60 miles/hr", "60"),
    ("3 m/s^2", "3 meters per second squared", "3"),
    ("$18", "\\$18", "18 dollars", "18 USD", "USD 18", "18$", "18\\$", "US$18", "$18 in all", "18 dollars left", "18"),
    ("Rs. 73", "Rs.73", "Rs 73", "73 rupees", "\u20b973", "73"), ("73€", "€73", "73 €", "73 euros", "EUR 73", "73"),
    ("\u00a373", "73 pounds", "73\u00a3", "73 pounds sterling", "73"),
    ("73 lb", "73 pounds", "73 lbs", "73"),
    ("$18 per day", "$18 a day", "$18/day", "18 dollars per day", "18"),
    ("5 inches", "5 in", "5 inch", "5"), ("5 km", "5 KM", "5\\mathrm{km}", "5\\ \\text{km}", "5"),
    ("5 boxes", "5 box"), ("5 pennies", "5 penny"), ("5 glasses", "5 glass"), ("5 minutes", "5 min"),
    ("$5M", "5 million", "$5,000,000", "5000000", "$5 MM", "$5 million", "5 million dollars", "5\\text{ million}"),
    ("5M€", "€5M", "5 million euros", "5000000"),
    ("$5K", "5 thousand", "5000", "$5k", "5,000"), ("$5B", "5 billion", "$5bn", "5000000000"),
    ("2.5 million", "2500000", "2,500,000"), ("5 hundred", "500"),
]  # fmt: skip
OTHER = [  # of no line is any way the same as another one's first
    ("45°F", "45°C"), ("45° ", "45 cm"), ("5 square meters", "5 meters"), ("5 cubic meters", "5 square meters"),
    ("5 m^2", "5 m"), ("5 people per day", "5 days"), ("5 people per day", "5 people"), ("60 km/h", "60 km"),
    ("60 mph", "60 km/h"), ("3 m/s^2", "3 m/s"), ("73€", "$73"), ("\u00a373", "73 lb"), ("$18 per day", "$18"),
    ("Rs.2", "Rs.4.5"), ("Rs.2", "$2"),
    ("€5M", "$5M"),
    ("5 hours a week", "5 hours"), ("5 dollars per pound", "5 pounds"), ("5 red apples", "5 apples"),
    ("5 feet", "5 inches"), ("18 cents", "18 dollars"), ("5 MB", "5 m"),
]  # fmt: skip
NOT_FIVE = [
    "$5M", "5 M", "5M", "5 MM", "5MM", "$5 M", "$5MM", "$5m", "5 million", "5 Million", "5 MILLION", "5K", "$5K",
    "5 k", "5B",
    "$5B", "5T", "5 G", "5 thousand", "5 hundred", "5 mil", "5 mln", "5 dozen", "5 score", "5 squared", "5 sin x",
    "5 log",
    "5 or so", "5ish", "5 fold", "5 a", "5 A", "5x", "5\\pi", "5!", "5M€", "€5M", "5 million euros", "$5€", "$5 euros",
    "5'", "5 ft 3 in", "5th", "5 halves", "0.5\\bar5", "$5%",
]  # fmt: skip
WRITTEN = {
    "73": [
        "\\left(73\\right)", "\\bigl(73\\bigr)", "\\,73", "73\\,", "\\;73\\text{ cm}", "((73))", "73€", "73 \\$",
        "**73** apples",
        "**Answer:** 73", "**Answer**: 73", "**Answer: 73**", "Answer: **73**", "**Final answer:** **73** apples",
        "*73*",
        "_73_", "__73__", "`73`", "### 73", "#### 73", "x = **73**", "\\mathbf{73}", "\\underline{73}",
        "\\text{73 apples}",
        "{73}", "\\displaystyle 73", "\\left\\{73\\right\\}", "73.\\,",
    ],
    "11111111": ["11,\\! 111,\\! 111", "11,\\!111,\\!111", "11\\,111\\,111", "11{,}111{,}111", "11,111,111",
    "11\\ 111\\ 111"],
    "7/2": ["3\\,\\frac12", "3\\ \\frac{1}{2}", "3\\,\\dfrac{1}{2}", "3~1/2", "\\left(3\\frac12\\right)", "3.5",
    "\\frac{-7}{-2}"],
    "1/3": ["0.\\bar3", "0.\\bar{3}", "0.\\dot3", "0.\\dot{3}", "0.\\overline{3}", "0.\\overline3", ".\\bar3",
    "0.3\\bar3"],
    "1/6": ["0.1\\overline{6}", "0.1\\bar6", "0.1\\dot6", "0.1\\dot{6}"],
    "4/33": ["0.\\overline{12}", "0.\\bar{12}", "0.\\dot1\\dot2", "0.\\dot{1}\\dot{2}"],
    "1/7": ["0.\\overline{142857}", "0.\\dot{1}4285\\dot{7}"],
    "-\\frac12": [
        "\\frac{1}{-2}", "-(1/2)", "-\\left(\\frac12\\right)", "\\frac{-1}{2}", "-\\frac{-1}{-2}", "1/-2", "1/(-2)",
        "(-1/2)",
        "-0.5", "-\\tfrac12", "\u2212\\frac12",
    ],
    "-7/2": ["-3\\frac12", "-(3 1/2)", "-3\\,\\frac{1}{2}"],
}  # fmt: skip
UNREADABLE = {
    "11111111": ["11, 111, 111", "11\\,1111\\,11", "11,\\! 11,\\! 1111"],
    "34/99": ["0.\\bar34", "0.\\dot34"], "12345": ["1\\,2345", "12\\,345\\,6"], "8": ["2**3", "2 ** 3"],
    "73": ["**7**3", "7**3**", "**73** or 74", "**74** apples", "73**", "*7*3"], "7": ["-(-7)", "--7", "+-7", "-(+7)"],
    "-5/2": ["3\\frac{1}{-2}", "-3 + \\frac12"], "1/2": ["-(1/2)", "\\frac{1}{-2}"], "3/10": ["0.\\bar3", "0.\\dot3"],
}  # fmt: skip


def right(answer: str, gold: str, check: str) -> bool:
    return is_correct(f"<answer>{answer}</answer>", check, {"answer": gold})


@pytest.mark.parametrize("check", ["number", "math"])
def test_ways_to_write_a_quantity_are_the_same_and_other_units_contradict_it(check: str) -> None:
    for first, *others in SAME:
        for other in others:
            assert right(other, first, check), (other, first)
            assert right(first, other, check), (first, other)
    for one, another in OTHER:
        assert not right(one, another, check), (one, another)
        assert not right(another, one, check), (another, one)


@pytest.mark.parametrize("check", ["number", "math"])
def test_what_makes_a_number_another_one_is_no_unit(check: str) -> None:
    for text in NOT_FIVE:
        assert not right(text, "5", check), text


@pytest.mark.parametrize("check", ["number", "math"])
def test_a_number_is_read_in_every_notation_that_models_use(check: str) -> None:
    for gold, forms in WRITTEN.items():
        value = parse_number(gold)
        assert value is not None
        for form in forms:
            assert right(form, gold, check), (form, gold)
            assert parse_number(form) == value or "=" in form or "\\{" in form, form
            for other in (value + 1, -value, value / 10, 1000 * value):
                assert not right(form, str(other), check), (form, other)
    for gold, forms in UNREADABLE.items():
        for form in forms:
            assert not right(form, gold, check), (form, gold)


@pytest.mark.parametrize("unit", ["cm", "m", "square cm", "inches", "cm per day"])
def test_formulas_carry_units_too(unit: str) -> None:
    for other in ("cm", "m", "square cm", "inches", "cm per day"):
        assert right(f"6\\pi\\text{{ {other}}}", f"6\\pi\\text{{ {unit}}}", "math") is (unit == other)
    assert right("6\\pi", f"6\\pi\\text{{ {unit}}}", "math")
    assert right(f"6\\pi\\text{{ {unit}}}", "6\\pi", "math")


DECORATED = (
    "{}",
    "\\left({}\\right)",
    "\\,{}",
    "**{}**",
    "x + y = {}",
    "= {}",
    "\\text{{Area}} = {}",
    "{} = x",
    "({})",
    "${}$",
)


@given(
    st.fractions(min_value=-999, max_value=999, max_denominator=99),
    st.fractions(min_value=-999, max_value=999, max_denominator=99),
    st.sampled_from(DECORATED),
    st.sampled_from(["number", "math"]),
)
@settings(max_examples=150, deadline=None)
def test_a_decorated_number_is_right_for_its_value_only(value: Fraction, other: Fraction, form: str, check: str) -> None:
    sign = "-" * (value < 0)
    for written in (str(value), f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"):
        if value.denominator > 1 or "frac" not in written:
            answer = form.format(written)
            assert right(answer, str(value), check), answer
            assert right(answer, str(other), check) is (value == other), (answer, other)
