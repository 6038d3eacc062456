from gateway.changes import Changes
from tests.kit.virtual_time import LoopClock


class Book:
    """Revisions of one subject, in a database that may be away."""

    def __init__(self):
        self.number = 0
        self.away = False
        self.read = 0

    async def revisions(self):
        if self.away:
            raise OSError("no route to host")
        return {"keys": self.number}

    async def look(self):
        self.read += 1


async def nothing():
    pass


async def test_a_change_that_was_made_is_made_though_it_cannot_be_read_back(caplog):
    book = Book()
    changes = Changes(book.revisions, {"keys": book.look}, always=nothing, nudges=None, clock=LoopClock())
    await changes.follow()
    book.number, book.away = 1, True
    await changes.tell()
    assert "no route to host" in caplog.text
    book.away = False
    await changes.follow()
    assert book.read == 2
