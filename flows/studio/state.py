"""State of one visitor's page."""

from collections.abc import Mapping
from typing import NamedTuple

from flows.editing.history import History, Start
from flows.errors import UserError


class View(NamedTuple):
    """Selection of the directions that have sliders.

    Attributes:
        words: Text that the names contain, without regard to case; empty for all.
        page: Number of the page, from 1, of `POOL` directions of each group.
    """

    words: str = ""
    page: int = 1


FIRST_PAGE = View()


class Session(NamedTuple):
    """State of one visitor's page.

    Attributes:
        name: Name of the model.
        history: History of the picture.
        other: History of a second picture for interpolation, if there is one.
        label: Class of the picture before the edits; None if it is unknown.
        photo: Start of the latest upload on the model where it was opened; None if there was none.
        kept: Name of each other model that was used to its session there, without `kept`.
    """

    name: str
    history: History
    other: History | None = None
    label: int | None = None
    photo: Start | None = None
    kept: Mapping[str, "Session"] = {}

    def leaving(self) -> Mapping[str, "Session"]:
        """Sessions that are kept when another model is chosen: this one, and those kept already."""
        return {**self.kept, self.name: self._replace(kept={})}


def require_image(session: Session | None) -> Session:
    """Return the session; raises UserError if there is no picture yet."""
    if session is None:
        raise UserError("there is no picture yet: upload one, pick an example, or take a sample")
    return session


class FoundCode(NamedTuple):
    """Code that a search found.

    Attributes:
        name: Name of the model.
        history: History that begins with the code.
    """

    name: str
    history: History
