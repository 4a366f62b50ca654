"""Numbers as words; the expected ones are what num2words 0.5.14 writes."""

import pytest

from streamvlm.models._numbers import in_words

SPELLED = {
    0: "zero",
    1: "one",
    11: "eleven",
    19: "nineteen",
    20: "twenty",
    42: "forty-two",
    100: "one hundred",
    101: "one hundred and one",
    110: "one hundred and ten",
    999: "nine hundred and ninety-nine",
    1000: "one thousand",
    1001: "one thousand and one",
    1100: "one thousand, one hundred",
    3600: "three thousand, six hundred",
    12345: "twelve thousand, three hundred and forty-five",
    999_999: "nine hundred and ninety-nine thousand, nine hundred and ninety-nine",
}


@pytest.mark.parametrize("number", SPELLED)
def test_a_number_is_spelled_as_the_stock_processor_spells_it(number):
    assert in_words(number) == SPELLED[number]


def test_no_two_numbers_are_spelled_alike():
    assert len({in_words(number) for number in range(3000)}) == 3000
