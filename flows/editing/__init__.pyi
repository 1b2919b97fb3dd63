# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it.

from flows.editing.editability import Editability as Editability
from flows.editing.editor import Editor as Editor
from flows.editing.editor import ScoreReading as ScoreReading
from flows.editing.editor import open_editor as open_editor
from flows.editing.history import Edit as Edit
from flows.editing.history import History as History
from flows.editing.history import Start as Start
from flows.editing.history import edited_upload as edited_upload
from flows.editing.moves import Moved as Moved
from flows.editing.moves import move_found as move_found
from flows.editing.records import load_history as load_history
from flows.editing.records import save_history as save_history
from flows.editing.sources import read_found as read_found

__all__ = [
    "Edit",
    "Editability",
    "Editor",
    "History",
    "Moved",
    "ScoreReading",
    "Start",
    "edited_upload",
    "load_history",
    "move_found",
    "open_editor",
    "read_found",
    "save_history",
]
