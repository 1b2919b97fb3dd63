"""The page: layout, and callbacks that call `actions`."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from flows import images as pixels
from flows.config import USER_ERRORS
from flows.dissection.instrument import default_layers
from flows.editing.history import History, laid_back
from flows.editing.records import load_history, save_history
from flows.editing.workbench import GROUPS, Workbench
from flows.files import slug
from flows.studio import actions, views
from flows.studio.uploads import open_upload

POOL = 8
"""Sliders of a group."""
PAINTABLE = (
    "window", "door", "bed", "lamp", "plant", "picture", "tree", "person", "vehicle", "banner",
)  # fmt: skip
"""Classes that come first in the list, where the segmenter has them."""
ALPHAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
SHOWN = 8
"""Example pictures, and samples."""
