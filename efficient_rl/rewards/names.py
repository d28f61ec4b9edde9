"""Which text beside an equals sign only names what the other side is worth.

A name is an expression with an unknown, or a few words, without anything that could turn the
statement round: `x`, `x + y`, `xy`, `f(2)`, `P(X=2)`, `(p, q)`, `\\text{Area}`. The equals sign
stands outside all brackets.
"""

import re
from collections.abc import Set

from efficient_rl.rewards.latex import levels

MAX_CHARACTERS = 100
MAX_WORDS = 6
SPELLED = re.compile(
    r"\\(?:text|mathrm|mathbf|mathit|mathsf|textbf|textit|textrm|mbox|boldsymbol|operatorname)\s*\{([^{}]*)\}"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


GREEK = _words("""
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell
""")
COMMANDS = GREEK | _words("""
    pi sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln lg exp sqrt frac binom max min gcd lcm deg
    det dim arg lim sum prod int Pr to infty cdot times div cap cup setminus ast circ partial nabla prime vec hat bar dot
    tilde overline overrightarrow widehat underline mathbb mathcal mathbf mathrm angle measuredangle triangle square
    parallelogram odot arc frown lfloor rfloor lceil rceil lvert rvert mid vert langle rangle therefore le ge in
""")
FUNCTIONS = _words("sin cos tan cot sec csc log ln exp sqrt max min gcd lcm det dim deg arg lim mod")
DOUBTS = _words("""
    not no non never neither nor none nothing nobody nowhere cannot cant isnt without but except excluding excluded
    unless unlike than instead anything everything wrong wrongly false falsely incorrect incorrectly untrue fake lie
    opposite negation unequal inequal neq ne less more fewer least most about around approximately approx almost
    nearly roughly circa maybe perhaps possibly probably likely unlikely might may could would either or and if hardly
    barely scarcely far different differs differ exceeds exceed above below impossible guess
""")
TOKEN = re.compile(r"\\([A-Za-z]+)|([A-Za-z]+(?:'[a-z]+)?)|\\[{}|,;:! ]|\d+|[\s()\[\]{}|^_+*/'.:,=<>-]", re.ASCII)
RELATION = re.compile(r"[=<>,;]|\\(?:le|ge|in)(?![A-Za-z])")
COUNTED = re.compile(r"\d\s*[A-Za-z]{3,}", re.ASCII)  # 7 dozen is an amount and no name
DANGLING = re.compile(r"(?:[-+*/^_.:,]|\\(?:cdot|times|div|cap|cup|setminus|circ|ast|to|le|ge|in))\s*$|^\s*[*/^_.:,]")
VARIABLE = rf"(?:[A-Za-z]|\\(?:{'|'.join(sorted(GREEK))})(?![A-Za-z]))(?:_\s*(?:\w|\{{\w{{1,5}}\}}))?'{{0,2}}"
LISTED = rf"\s*{VARIABLE}(?:\s*,\s*{VARIABLE})*\s*"
PURE = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        VARIABLE,
        rf"\({LISTED}\)",
        rf"{VARIABLE}\s*[(\[](?:{LISTED}|\s*-?\d+(?:\.\d+)?\s*)[)\]]",
        r"(?:P|E|\\Pr|Pr|Var|\\mathbb\s*\{\s*E\s*\})\s*[(\[].*[)\]]",
        r"m?\s*(?:\\(?:angle|triangle)\s*)?[A-Z]{1,4}|\\(?:vec|hat|bar|overline|overrightarrow|widehat)\s*\{?\s*[A-Za-z]{1,4}\s*\}?",
        r"[A-Za-z ]*[A-Za-z]{4}[A-Za-z ]*",
    )
)


def is_name(text: str, known: Set[str] = frozenset()) -> bool:
    """Whether a side of an equation only names what the others are worth.

    It has a letter or word that is not among the `known` unknowns (those of the gold answer), and
    holds nothing but formulas and words: no relation or list outside brackets, no sign such as
    \\neq or \\pm, no word that denies or doubts (not, never, but, or). What has no unknown is a
    value and must be right.
    """
    spelled = SPELLED.sub(r" \1 ", text)
    if len(text) > MAX_CHARACTERS or COUNTED.search(spelled) or DANGLING.search(spelled):
        return False
    found = list(TOKEN.finditer(spelled))
    commands = {token[1] for token in found if token[1]}
    words = [token[2] for token in found if token[2]]
    return (
        sum(len(token[0]) for token in found) == len(spelled)
        and commands <= COMMANDS
        and not any(map(is_doubt, words))
        and sum(len(word) > 2 for word in words) <= MAX_WORDS
        and _is_one_term(spelled)
        and not unknowns(spelled) <= known
    )


def _is_one_term(text: str) -> bool:
    """Whether all brackets close, and no relation and no comma stands outside them."""
    read = list(levels(text))
    outside = "".join(token for token, depth in read if depth == 0)
    closed = min((depth for _, depth in read), default=0) == 0 and read[-1:] and read[-1][1] == 0
    return bool(closed) and outside.count("|") % 2 == 0 and RELATION.search(outside) is None


def is_pure_name(text: str) -> bool:
    """Whether a side of a gold equation is only a name, so that its value may stand alone.

    A variable, a tuple of variables, a function of variables or of a number, a probability,
    capitals as of a line AB, or words; not `x + y` nor `xy`: `xy = 6` is a curve.
    """
    spelled = SPELLED.sub(r" \1 ", text).strip()
    return is_name(text) and any(pattern.fullmatch(spelled) for pattern in PURE)


def is_doubt(word: str) -> bool:
    """Whether a word denies or doubts what follows it."""
    word = word.lower()
    return word in DOUBTS or word.endswith("n't")


def unknowns(text: str) -> frozenset[str]:
    """The letters, Greek letters and words of a formula, without the names of functions and pi."""
    found: set[str] = set()
    for token in TOKEN.finditer(SPELLED.sub(r" \1 ", text)):
        if token[1]:
            found |= GREEK & {token[1]}
        elif token[2] and token[2].lower() not in FUNCTIONS:
            found |= {token[2], *token[2]} if len(token[2]) > 2 else set(token[2])
    return frozenset(found)
