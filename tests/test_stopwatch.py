from streamvlm.stopwatch import Stopwatch


def busy(amount: int = 200_000) -> int:
    return sum(range(amount))


def test_time_is_charged_to_the_innermost_stage_only():
    watch = Stopwatch()

    def slow():
        for _ in range(3):
            busy()
            yield 1

    inner = watch.items("decode", slow())
    outer = watch.items("dedupe", (item for item in inner))
    with watch.stage("whole"):
        assert list(outer) == [1, 1, 1]
    spent = watch.milliseconds
    assert spent["decode"] > spent["dedupe"]
    assert spent["decode"] > spent["whole"]


def test_items_are_counted():
    watch = Stopwatch()
    list(watch.items("decode", range(5)))
    assert watch.counts["decode"] == 5


def test_a_stage_that_fails_is_left():
    watch = Stopwatch()
    try:
        with watch.stage("bad"):
            raise RuntimeError
    except RuntimeError:
        pass
    before = watch.milliseconds["bad"]
    busy()
    assert watch.milliseconds["bad"] == before
