"""What stands before an equals sign names the answer, must be true, or turns it round: one rule for all checks."""

import pytest

from efficient_rl.rewards.names import is_name, is_pure_name
from efficient_rl.rewards.verify import is_correct

NAMED = [  # before `= 7`
    "x", "x_1", "x'", "\\theta", "f(2)", "f'(0)", "f^{-1}(3)", "P(X=2)", "P(X \\ge 2)", "P(A|B)", "E[X]",
    "\\mathbb{E}[X]",
    "x+y", "x - y", "xy", "2x", "x^2", "|x|", "-x", "\\frac{a}{b}", "a_1 + a_2", "\\angle ABC", "m\\angle A",
    "\\overline{AB}",
    "AB", "[ABC]", "\\triangle ABC", "\\text{Area}", "\\text{Area of } ABC", "\\mathrm{total}", "total", "Total cost",
    "the number of apples", "x = y", "\\sum_{k=1}^{3} a_k", "\\lim_{x \\to 0} g(x)", "\\cos A", "\\log_2 n",
    "\\therefore x",
    "so x", "3 + 4", "14 / 2", "(x)", "", "answer",
]  # fmt: skip
TURNED = [
    "\\neq", "\\ne", "\\not", "\\pm", "\\mp", "\\lnot", "\\neg", "\\nless", "\\approx", "\\sim", "\\le", "\\equiv",
    "\\cancel",
    "x \\neq", "x \\not", "\\not x", "\\pm x", "x \\pm 1", "\\lnot x", "not", "NOT", "not x", "x is not", "never",
    "no x",
    "isn't", "x isn't", "x doesn't", "anything but", "all but", "anything except", "other than", "unequal", "wrong",
    "false",
    "\\text{not}", "\\text{not } x", "\\mathrm{not}", "about", "at least", "perhaps x", "8 or", "x = 8 or x", "8",
    "8 = x",
    "x = 8", "3 + 5", "0", "x, y", "x = 8, y", "x;", "\\pi", "7 dozen", "a < b", "x \\in", "!", "!x", "x !", "x /", "/",
    "x +", "x -", "x *", "<", ">", "x >", "\u2260", "\u00ac", "\u2260 x", "x |", "x)", "}x{", "\\boxed{x}",
    "\u4e0d\u662f",
]  # fmt: skip
RELATIONS = [
    "x \\ne 7", "x \\neq 7", "x \\not= 7", "x \\not = 7", "x \u2260 7", "x != 7", "x !== 7", "x <> 7", "x ~= 7",
    "x =~ 7",
    "x >= 7", "x => 7", "x =< 7", "x <= 7", "x /= 7", "x =/= 7", "x += 7", "x \\approx 7", "x \u2248 7", "x \\equiv 7",
    "x \\in 7", "x -> 7", "x {=} 7", "x \\cancel{=} 7", "x = not 7", "x = \\ne 7", "7 = not", "7 =", "=", "7 = 7 dozen",
    "7 = x or 8", "x=7, y=8", "x = 7 or x = 8", "x = 7 \\text{ and } y = 8", "answer != 7", "the answer is not = 7",
    "wrong answer: 7",
]  # fmt: skip


def right(answer: str, gold: str, check: str = "math") -> bool:
    return is_correct(f"<answer>{answer}</answer>", check, {"answer": gold})


@pytest.mark.parametrize("check", ["number", "math"])
def test_what_names_the_answer_is_left_out_and_what_turns_it_round_is_wrong(check: str) -> None:
    for name in NAMED:
        assert right(f"{name} = 7", "7", check), name
        assert right(f"{name}=7\\text{{ cm}}", "7", check), name
        assert not right(f"{name} = 8", "7", check), name
    for turned in TURNED:
        for gap in ("=", " = ", " == "):
            assert not right(f"{turned}{gap}7", "7", check), turned
    for text in RELATIONS:
        assert not right(text, "7", check), text


@pytest.mark.parametrize("check", ["number", "math"])
@pytest.mark.parametrize(
    "answer",
    [
        "7 = x",
        "x := 7",
        "x == 7",
        "x\\!=7",
        "x = 14/2 = 7",
        "x = y = 7",
        "7 = 7",
        "7 = 2x",
        "Answer:7",
        "$x$ = 7",
        "$x$ = $7$",
        "$x = 7$",
        "**x = 7**",
        "x = \\boxed{7}",
    ],
)
def test_an_equation_may_be_written_in_other_ways(answer: str, check: str) -> None:
    assert right(answer, "7", check)


@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        ("P(X=2)=1/4", "1/4", True), ("P(X=2)=1/4", "2", False), ("f(2)=3", "2", False), ("2x=14", "7", False),
        ("x^2=9", "3", False), ("(p,q)=(3,2)", "(3,2)", True), ("(3,2)", "(p,q)=(3,2)", True),
        ("(p,q)=(2,3)", "(3,2)", False), ("(x,y)=(3,2)", "(p,q)=(3,2)", False), ("(2,3)", "(p,q)=(3,2)", False),
        ("(x,y)=(5,8)\\text{ and }(8,5)", "(5,8), (8,5)", True), ("(5,8), (8,5)", "(x,y)=(5,8)\\text{ and }(8,5)",
        True),
        ("(x,y)=(5,8)\\text{ or }(x,y)=(8,5)", "(x,y)=(5,8)\\text{ and }(8,5)", True),
        ("(x,y)=(5,8)", "(x,y)=(5,8)\\text{ and }(8,5)", False), ("(x,y)=(5,8), (8,6)", "(5,8), (8,5)", False),
        ("A \\cap B = \\{1,2\\}", "\\{1,2\\}", True), ("A \\cup B = \\{1,2\\}", "1, 2", True),
        ("\\{1,2\\}", "A \\cap B = \\{1,2\\}", True), ("\\{1,3\\}", "A \\cap B = \\{1,2\\}", False),
        ("\\vec{v} = (1,2)", "(1,2)", True), ("x = (1,2)", "[1,2]", False), ("(3,4) = (1,2)", "(1,2)", False),
        ("x = 1, 2", "1, 2", True), ("x = 1 \\text{ or } x = 2", "x = 1, 2", True), ("x = \\pm 2", "2, -2", True),
        ("5", "x + y = 5", False), ("6", "xy = 6", False), ("5 = x + y", "x + y = 5", True), ("yx = 6", "xy = 6", True),
        ("3", "f(2) = 3", True), ("1/4", "P(X=2) = 1/4", True), ("5", "AB = 5", True), ("7", "\\text{Area} = 7", True),
        ("7 = x", "x = 7", True), ("y = 7", "x = 7", False), ("a : b = 2 : 3", "2 : 3", True),
        ("x + y = \\sqrt{2}", "\\sqrt{2}", True), ("f(x) = x+1", "x+1", True), ("x + 1 = f(x)", "x+1", True),
        ("2x + 2 = x + 1", "x+1", False), ("x = x + 1", "x+1", False), ("\\text{Area} = \\pi r^2", "\\pi r^2", True),
        ("R = R^2", "r^2", True), ("c = \\sqrt{2}", "\\sqrt{2}\\text{ cm}", True),
        ("n \\equiv 3 \\pmod 5", "n \\equiv 3 \\pmod{5}", True), ("1/2 = \\frac12", "0.5", True),
    ],
)  # fmt: skip
def test_equations_of_other_kinds_follow_the_same_rule(answer: str, gold: str, verdict: bool) -> None:
    assert right(answer, gold) is verdict


@pytest.mark.parametrize("gold", ["\\sqrt{2}", "(1, 2)", "x + 1", "\\text{even}", "\\{1, 2\\}"])
def test_no_gold_answer_is_reached_through_a_sign_or_word_that_turns_it_round(gold: str) -> None:
    for turned in ("\\neq", "\\not", "\\pm", "not", "anything but", "\\lnot", "isn't", "8", "\u2260"):
        assert not right(f"{turned} = {gold}", gold), turned
        assert not right(f"{turned} {gold}", gold), turned


def test_a_name_of_a_gold_answer_is_no_expression() -> None:
    for name in ("x", "x_{12}", "(x, y)", "f(x)", "f(2)", "P(X=2)", "AB", "\\angle ABC", "\\text{Area}", "total cost"):
        assert is_pure_name(name), name
    for expression in ("x + y", "xy", "2x", "x^2", "-x", "x y", "|x|", "7", "\\pi", "not", "x(y+1)"):
        assert not is_pure_name(expression), expression


def test_a_name_says_something_that_the_gold_answer_does_not() -> None:
    assert is_name("y + x", frozenset("x"))
    assert not is_name("2x + 2", frozenset("x"))
    assert not is_name("y " * 51)
