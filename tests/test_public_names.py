import pytest

import streamvlm


def test_every_public_name_is_there_and_the_list_is_sorted():
    assert streamvlm.__all__ == sorted(streamvlm.__all__)
    for name in streamvlm.__all__:
        assert getattr(streamvlm, name) is not None


def test_a_wrong_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'Stream'"):
        _ = streamvlm.Stream


def test_every_exception_is_drawn_in_the_tree():
    from streamvlm import errors

    raised = [name for name in dir(errors) if isinstance(getattr(errors, name), type)]
    for name in raised:
        assert name in errors.__doc__
        assert issubclass(getattr(errors, name), errors.StreamVLMError)
