"""Numbers as English words, spelled as the package num2words does: SmolVLM's prompt has one."""

from __future__ import annotations

# fmt: off
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
_TENS = ["ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(number: int) -> str:
    """Spell a number.

    Args:
        number: 0 to 999 999.

    Returns:
        For example `forty-two`, `one hundred and seven`, `one thousand, two hundred`.
    """
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return f"{_TENS[tens - 1]}-{_ONES[rest]}" if rest else _TENS[tens - 1]
    base, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    count, rest = divmod(number, base)
    joint = " and " if rest < 100 else ", "
    return f"{in_words(count)} {name}" + (f"{joint}{in_words(rest)}" if rest else "")
