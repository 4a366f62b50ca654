from streamvlm.video.clock import Clock


def times(raw, period=0.1):
    clock = Clock()
    return [clock(each, period) for each in raw]


def test_the_first_picture_is_second_zero():
    assert times([-6.3, -6.2, -6.1]) == [0.0, 0.1, 0.2]


def test_a_missing_time_is_the_end_of_the_picture_before():
    assert times([5.0, None, 5.2, None]) == [0.0, 0.1, 0.2, 0.3]


def test_a_clock_that_restarts_goes_on_from_the_last_picture():
    assert times([100.0, 100.1, 0.0, 0.1]) == [0.0, 0.1, 0.2, 0.3]


def test_a_small_step_back_is_reordering_and_does_not_shift_what_follows():
    assert times([0.0, 0.3, 0.1, 0.2, 0.6]) == [0.0, 0.3, 0.3, 0.3, 0.6]


def test_a_jump_ahead_is_kept_and_counted_as_gap():
    clock = Clock()
    assert [clock(each, 0.1) for each in (0.0, 1000.1)] == [0.0, 1000.1]
    assert clock.gap == 1000.0


def test_a_picture_that_stands_a_second_longer_is_no_gap():
    clock = Clock()
    clock(0.0, 0.1)
    clock(1.5, 0.1)
    assert clock.gap == 0


def test_time_passed_over_is_no_gap():
    clock = Clock()
    clock(7.0, 0.1)
    clock.pass_over(raw_end=17.0)
    clock(17.0, 0.1)
    assert clock.gap == 0


def test_raw_is_the_way_back():
    clock = Clock()
    clock(3.5, 0.1)
    assert clock.raw(clock(4.5, 0.1)) == 4.5


def test_the_end_is_the_last_picture_and_its_period():
    clock = Clock()
    clock(1.0, 0.1)
    clock(2.0, 0.5)
    assert clock.end == 1.5
