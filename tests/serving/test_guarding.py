"""How often a client may ask, and what is shown of a file's name: by hand, and for whatever is thrown at them."""

from hypothesis import given
from hypothesis import strategies as st

from makermark.serving.guarding import CLIENTS_REMEMBERED, Rate
from makermark.serving.uploads import shown


def test_a_bucket_by_hand():
    rate = Rate(per_minute=60, burst=2)
    assert [rate.wait("a", now) for now in (0.0, 0.0, 0.0, 0.5, 1.0, 1.0)] == [0, 0, 1, 1, 0, 1]
    assert rate.wait("b", 1.0) == 0
    assert [rate.wait("a", now) for now in (100.0, 100.0, 100.0)] == [0, 0, 1]


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_no_more_pass_than_the_burst_and_what_came_back(gaps):
    rate, now, passed = Rate(per_minute=120, burst=5), 0.0, 0
    for gap in gaps:
        now += gap
        passed += rate.wait("a", now) == 0
    assert passed <= 5 + 2 * now + 1e-6


def test_clients_are_forgotten_in_the_end():
    rate = Rate(per_minute=1, burst=1)
    for number in range(CLIENTS_REMEMBERED + 10):
        rate.wait(str(number), 0.0)
    assert rate.wait(str(CLIENTS_REMEMBERED + 9), 0.0) > 0
    assert rate.wait("0", 0.0) == 0


@given(st.text(max_size=400))
def test_a_shown_name_is_one_plain_name(name):
    found = shown(name)
    assert 0 < len(found) <= 120
    assert found.strip() == found
    assert not set(found) & set("/\\\n\r\t\x00")


def test_names_by_hand():
    assert shown("../../etc/passwd") == "passwd"
    assert shown("C:\\clips\\a.wav") == "a.wav"
    assert shown("a\u202eb.wav") == "ab.wav"
    assert shown("..") == shown("") == shown("/") == "clip"
