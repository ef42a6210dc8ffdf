"""The window of the last lines: bounded, shared, and honest about what a reader missed."""

from rfuav_gateway.logs.places import Place
from rfuav_gateway.logs.window import CHUNK, Event, Window


def event(number: int, size: int = 10) -> Event:
    return Event(b"%d" % number + b"." * size, 0, Place("p", number, 0))


def filled(count: int, **limits: int) -> Window:
    window = Window(**{"most": 1000, "most_bytes": 10**6, **limits})
    for number in range(count):
        window.append(event(number))
    return window


def test_lines_are_bounded_by_number():
    window = filled(250, most=100)
    assert (window.first, window.end, window.cut) == (150, 250, True)
    assert not filled(100, most=100).cut


def test_lines_are_bounded_by_bytes_but_one_is_kept():
    window = filled(250, most_bytes=500)
    assert sum(len(event.data) for event in window.last(1000)) <= 500
    window.append(event(1, size=2000))
    assert [len(event.data) for event in window.last(1000)] == [2001]


def test_a_reader_that_fell_behind_learns_how_much_it_missed():
    window = filled(250, most=100)
    read = window.read(30)
    assert (read.missed, read.position) == (120, 250)
    assert read.data.startswith(b"150.")
    assert window.read(250) == (0, b"", 250)
    assert window.read(260 - 10).missed == 0


def test_readers_share_the_bytes():
    window = filled(20)
    assert window.read(5).data is window.read(5).data


def test_shared_bytes_are_not_given_after_they_left_the_window():
    window = filled(20, most=20)
    before = window.read(0)
    window.append(event(20))
    after = window.read(0)
    assert (before.missed, before.position) == (0, 20)
    assert (after.missed, after.position) == (1, 21)


def test_a_delivery_is_bounded():
    window = Window(most=1000, most_bytes=10**7)
    for number in range(100):
        window.append(event(number, size=5000))
    position, sizes = 0, []
    while position < window.end:
        read = window.read(position)
        sizes.append(len(read.data))
        position = read.position
    assert max(sizes) <= CHUNK
    assert len(sizes) == 8


def test_a_line_s_place_finds_what_came_later_whatever_the_clocks_say():
    window = Window(most=100, most_bytes=10**6)
    order = [Place("a", 5, 0), Place("b", 9, 0), Place("a", 5, 1), Place("b", 2, 0), Place("a", 6, 0)]
    for place in order:
        window.append(Event(b"x", 0, place))
    assert [event.place for event in window.after(Place("a", 5, 1))] == order[3:]
    assert [event.place for event in window.after(Place("a", 5, 7))] == [Place("b", 9, 0), Place("a", 6, 0)]
