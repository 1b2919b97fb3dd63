"""Page of the studio: layout, and callbacks that call a `Studio`."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData as ImagePayload
from PIL import Image
from torch import Tensor

from flows.display.table import Table
from flows.editing.editor import GROUPS
from flows.errors import Unsupported, is_user_error, sentence_of
from flows.images import size_text
from flows.inversion.arrays import SUFFIXES
from flows.studio import actions, views
from flows.studio.session import ALPHAS, POOL, Studio
from flows.studio.state import FIRST_PAGE, FoundCode, Session, View, require_image

BRUSH = "#ff3b30"
TEMPERATURE = 0.8
"""Default temperature of samples."""
BUTTONS: list[Any] = ["download", "fullscreen"]
"""Buttons of pictures; none of them sends a picture to another machine."""
SESSION_SECONDS = 3600
"""Seconds after which the session and the files of a visitor who has left are deleted."""
CSS = """
.pixels img {image-rendering: pixelated} footer {display: none !important}
#table table {display: block; overflow-x: auto}
#table table, #readings table {font-size: small}
#table th, #table td, #readings th, #readings td {white-space: nowrap; padding: 3px 6px}
.toast-wrap {top: auto !important; bottom: 1rem}
.wrap:has(> .error), button[role=tab][aria-disabled=true] {display: none !important}
"""
"""Style of the page: notices stand at the bottom and cover no tabs; a failure leaves what is shown."""
GUARANTEES = {
    "exact": "Exact inverse: the reconstruction equals the picture byte for byte.",
    "exact-given-w": "Exact from w: the encoder from pictures to w is learned.",
    "learned": "Learned encoder, not exact: its reconstruction residual is kept where nothing changes.",
    "none": "No encoder: samples of the model are edited; the code of a picture is found by optimisation.",
}


ANY_CLASS = ("not given", "")
"""Choice of no class: that of an example, else the most likely one."""
NO_SEGMENTER = (
    "\n\n*Paint* and *Look inside* need a segmenter for these images: `flows train --config "
    "scenes/segmenter` trains one, and `flows studio --segmenter` takes it."
)


def upload(label: str, name: str) -> gr.Image:
    """Image component that gives the path of the uploaded file, so that our errors describe its faults."""

    def path_of(payload: ImagePayload | None) -> str | None:
        return None if payload is None else payload.path

    image = gr.Image(
        label=label,
        sources=["upload", "clipboard"],
        height=150,
        elem_id=name,
        format="png",
        type="filepath",
        buttons=["fullscreen"],
    )
    # Not in a subclass, for which gradio would write a stub file beside this module.
    image.preprocess = path_of  # type: ignore[method-assign]
    return image


def as_notice(error: Exception) -> gr.Error:
    """Notice for the visitor: the message of a user's mistake, or the statement that there is a bug.

    The traceback of a bug is printed in the log of the server, because visitors cannot use its message.
    """
    if is_user_error(error):
        return gr.Error(sentence_of(error), print_exception=False)
    return gr.Error("This is a bug in flows; its traceback is in the log of `flows studio`.")


def sentence(act: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a callback so that its exceptions become notices on the page; see `as_notice`."""

    @functools.wraps(act)
    def call(*given: Any) -> Any:
        try:
            return act(*given)
        except Exception as error:
            raise as_notice(error) from error

    @functools.wraps(act)
    def iterate(*given: Any) -> Iterator[Any]:
        try:
            yield from act(*given)
        except Exception as error:
            raise as_notice(error) from error

    return iterate if inspect.isgeneratorfunction(act) else call


class Page:
    """Components of the page, with their events and callbacks.

    Args:
        studio: Models, and actions on sessions.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        # Initial choices; a page replaces them when it loads, clients of the API keep them.
        editor = studio.editor(studio.first)
        self.directions = list(editor.directions)
        self.all_levels = list(editor.latent.levels)
        with gr.Blocks(
            title="flows studio", analytics_enabled=False, delete_cache=(SESSION_SECONDS, SESSION_SECONDS)
        ) as self.blocks:
            self.session = gr.State(None, time_to_live=SESSION_SECONDS)
            self.view = gr.State(FIRST_PAGE, time_to_live=SESSION_SECONDS)
            self.found_code = gr.State(None, time_to_live=SESSION_SECONDS)
            gr.Markdown(
                "# flows studio\nInvert, steer and paint your own pictures: upload a picture, edit its code, "
                "paint on it, and download the result. No data leave the machine that serves this page."
            )
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=400):
                    self.left()
                self.tabs: dict[str, gr.Tab] = {}
                with gr.Column(scale=3, min_width=480), gr.Tabs():
                    for name, fill in (
                        ("Invert", self.invert_tab),
                        ("Steer", self.steer_tab),
                        ("Paint", self.paint_tab),
                        ("Look inside", self.inside_tab),
                        ("Mix", self.mix_tab),
                        ("Sample", self.sample_tab),
                        ("Compare", self.compare_tab),
                    ):
                        with gr.Tab(name) as self.tabs[name]:
                            fill()
            self.wire()

    # Layout ---------------------------------------------------------------------------------------

    def left(self) -> None:
        """Column with the model, the picture and its crop, its edits, and downloads."""
        names = list(self.studio.paths)
        self.model = gr.Dropdown(names, value=self.studio.first, label="Model", elem_id="model")
        self.promise = gr.Markdown()
        self.of_class = gr.Dropdown(
            [ANY_CLASS], value="", label="Class of the picture or sample", visible=False, elem_id="class"
        )
        self.upload = upload("Your picture: upload or paste", "upload")
        self.examples = gr.Gallery(
            label="or pick an example",
            columns=8,
            height=90,
            allow_preview=False,
            object_fit="contain",
            elem_id="examples",
            elem_classes="pixels",
            format="png",
            buttons=[],
        )
        with gr.Accordion("Crop", open=False):
            self.cropped = gr.Image(
                label="Part that is kept", interactive=False, height=200, format="png", buttons=[]
            )
            self.crop = [
                gr.Slider(0.1, 1, 1, step=0.01, label="size"),
                gr.Slider(0, 1, 0.5, step=0.01, label="horizontal position"),
                gr.Slider(0, 1, 0.5, step=0.01, label="vertical position"),
            ]
            self.recrop = gr.Button("Crop")
        self.now = gr.ImageSlider(
            label="Before and after",
            type="pil",
            format="png",
            interactive=False,
            elem_id="now",
            elem_classes="pixels",
            slider_position=50,
            height=340,
            max_height=340,
            buttons=["fullscreen"],
        )
        self.status = gr.Markdown(elem_id="status")
        with gr.Row():
            self.undo = gr.Button("Undo", elem_id="undo")
            self.reset = gr.Button("Reset", elem_id="reset")
        with gr.Row():
            self.take = gr.Button("Download picture", elem_id="take")
            self.keep = gr.Button("Download record", elem_id="keep")
        self.files = {
            name: gr.DownloadButton(name, elem_id=f"{name}_file", visible="hidden")
            for name in ("take", "keep")
        }
        self.record = gr.File(
            label="Load a record, or a file of codes", file_types=list(SUFFIXES), height=80, elem_id="record"
        )
        with gr.Row():
            self.code_number = gr.Number(
                0, label="number of the code in a file of several", precision=0, elem_id="code_number"
            )
            self.switch = gr.Button("Open with its model", visible=False, elem_id="switch")

    def invert_tab(self) -> None:
        """Tab with the reconstruction, and with an optimisation on another model."""
        gr.Markdown(
            "The picture is encoded, and the code is decoded. The inverse of a flow is exact, and its error "
            "map is black. The encoder of LIA is learned and has a small error. For a GAN, the code is found "
            "by optimisation."
        )
        with gr.Row():
            self.given = picture("Input")
            self.back = picture("Reconstruction", "back")
            self.error = picture("Error")
        self.certificate = gr.Markdown(elem_id="certificate")
        self.gauge = gr.Image(
            label="Typicality of the code; the band contains 90 % of samples",
            interactive=False,
            height=90,
            format="png",
            buttons=[],
        )
        gr.Markdown("**Optimisation on another model** finds an approximate code and takes some time:")
        with gr.Row():
            self.other_model = gr.Dropdown(
                self.studio.alike(self.studio.first), label="Model", elem_id="other_model"
            )
            self.seconds = gr.Slider(1, 60, 10, step=1, label="seconds")
        with gr.Row():
            self.optimise = gr.Button("Optimise", elem_id="search")
            self.stop = gr.Button("Stop", elem_id="stop", variant="stop")
        self.found = picture("Reconstruction so far", "found")
        self.progress = gr.Markdown(elem_id="progress")
        self.adopt = gr.Button("Edit this code", elem_id="adopt")

    def steer_tab(self) -> None:
        """Tab with a slider for each direction."""
        gr.Markdown(
            "Each slider moves the code along a direction, in standard deviations. A stroke of the brush "
            "continues from the moved picture, and the sliders start again at 0."
        )
        self.nothing = gr.Markdown(elem_id="directions")
        with gr.Column() as self.steering:
            self.sliders_and_strip()

    def sliders_and_strip(self) -> None:
        """Contents of the tab for a model with directions."""
        with gr.Row():
            self.find = gr.Textbox("", label="Find a direction", elem_id="find")
            self.page = gr.Slider(1, 2, 1, step=1, label="page of directions", visible=False, elem_id="page")
        self.groups, self.sliders = [], []
        for group in GROUPS:
            with gr.Accordion(group.capitalize(), open=True, visible=False) as box, gr.Row():
                for _ in range(POOL):
                    self.sliders.append(gr.Slider(-3, 3, 0, step=0.1, visible=False, min_width=200))
            self.groups.append(box)
        self.readings = gr.Markdown(elem_id="readings")
        with gr.Accordion("Options", open=False):
            self.without = gr.Dropdown(
                self.directions,
                multiselect=True,
                label="Directions to leave unchanged (conditional projection)",
            )
            self.levels = gr.Dropdown(
                self.all_levels, multiselect=True, label="Levels to move; if empty, all"
            )
            self.budget = gr.Slider(0, 0.5, 0, step=0.01, label="Typicality budget; 0 sets no limit")
        with gr.Row():
            self.along = gr.Dropdown(self.directions, label="Strip along")
            self.make_strip = gr.Button("Show strip")
        self.strip = sheet("From −3 to +3 σ", "strip")

    def paint_tab(self) -> None:
        """Tab with a brush for each class."""
        gr.Markdown(
            "Choose a class, paint where it should be drawn or erased, and press *Apply*. Outside the brush "
            "and its margin, no byte changes. Classes are copied from other images (exemplars); the first "
            "stroke may wait some seconds until these are computed."
        )
        with gr.Row():
            self.label = gr.Dropdown(self.studio.classes(self.studio.first), label="Class", elem_id="label")
            self.stroke = gr.Radio(["draw", "erase"], value="draw", label="Stroke", elem_id="stroke")
            self.strength = gr.Slider(0, 1, 1, step=0.05, label="strength")
        self.paint_canvas = gr.ImageEditor(
            label="Paint here",
            type="pil",
            format="png",
            sources=(),
            transforms=(),
            image_mode="RGBA",
            brush=gr.Brush(default_size=40, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
            layers=gr.LayerOptions(allow_additional_layers=False),
            canvas_size=(views.SIDE, views.SIDE),
            fixed_canvas=True,
            height=520,
            elem_id="editor",
            buttons=[],
        )
        self.apply = gr.Button("Apply", variant="primary", elem_id="apply")
        self.touched = gr.Markdown(elem_id="touched")

    def inside_tab(self) -> None:
        """Tab with the units of a layer, and with the omissions of the model."""
        gr.Markdown(
            "Classes that the units of a layer respond to, and the four samples that activate each unit "
            "most, with the active region outlined. Units can be ablated in your picture."
        )
        with gr.Row():
            layers = self.studio.layers(self.studio.first)
            self.layer = gr.Dropdown(layers, label="Layer", elem_id="layer", scale=4)
            self.look_inside = gr.Button("Show units", elem_id="look_inside")
        self.unit_gallery = gr.Gallery(
            label="Units", columns=4, height=560, format="png", object_fit="contain"
        )
        self.off = gr.CheckboxGroup([], label="Units to ablate")
        self.ablate = gr.Button("Ablate")
        gr.Markdown("**Omissions**: shares of the classes in test images and in samples of the model.")
        self.count = gr.Button("Count", elem_id="count")
        self.missing = gr.Markdown(elem_id="missing")

    def mix_tab(self) -> None:
        """Tab with the interpolation to a second picture."""
        gr.Markdown(
            "Interpolation from your picture to a second one, of the whole code or of some of its levels."
        )
        with gr.Row():
            self.second = upload("Second picture; if empty, a sample", "second")
            with gr.Column():
                self.second_seed = gr.Number(1, label="seed of the sample", precision=0)
                self.second_found = gr.Checkbox(False, label="take the code that Optimise found")
                self.sphere = gr.Radio(["line", "sphere"], value="line", label="Path")
                self.mix = gr.Button("Interpolate", elem_id="mix")
        self.way = sheet("Interpolation; each number is the share of the second picture", "way")
        with gr.Row():
            self.share = gr.Slider(0, 1, 1, step=0.01, label="share of the second picture")
            self.swapped = gr.Dropdown(
                self.all_levels, multiselect=True, label="Levels to move; if empty, all"
            )
        self.go = gr.Button("Apply to your picture", elem_id="go")

    def sample_tab(self) -> None:
        """Tab with samples."""
        gr.Markdown("Samples of the model. Choose one to edit it.")
        with gr.Row():
            self.seed = gr.Number(0, label="first seed", precision=0)
            self.temperature = gr.Slider(0.1, 1.2, TEMPERATURE, step=0.05, label="temperature or truncation")
            self.sample_button = gr.Button("Generate", elem_id="draw")
        self.samples = gr.Gallery(
            label="Samples",
            columns=6,
            height=340,
            allow_preview=False,
            format="png",
            elem_id="samples",
            elem_classes="pixels",
            buttons=[],
        )
        self.find_nearest = gr.Button("Nearest training image")
        with gr.Row():
            self.nearest = picture("Nearest training image")
            self.apart = gr.Markdown()

    def compare_tab(self) -> None:
        """Tab with the reconstructions of the picture by several models."""
        gr.Markdown(
            "Several models invert the picture: by an exact inverse or an encoder or, without one, by "
            "optimisation. The columns are those of `flows compare`; *undone* is the PSNR after an edit of "
            "the code, a second inversion and the reverse edit."
        )
        alike = self.studio.alike(self.studio.first)
        self.models = gr.CheckboxGroup(alike, value=alike[:3], label="Models of this size", elem_id="models")
        with gr.Row():
            self.each = gr.Slider(1, 30, 4, step=1, label="seconds of an optimisation")
            self.compare = gr.Button("Compare", elem_id="compare")
            self.stop_comparing = gr.Button("Stop", variant="stop")
        self.table = gr.Markdown(elem_id="table")
        self.grid = sheet("Reconstructions, above their errors, four times as bright", "grid")

    # Wiring ---------------------------------------------------------------------------------------

    def wire(self) -> None:
        """Define the outputs of callbacks, in the order of their results, and connect all events."""
        self.picture_changed: list[Any] = [self.session, self.now, self.status, self.readings]
        self.everything: list[Any] = [
            *self.picture_changed,
            *(self.given, self.back, self.error, self.certificate, self.gauge, self.cropped),
            self.paint_canvas,
            *self.sliders,
        ]
        self.of_view: list[Any] = [self.view, self.nothing, self.page, *self.groups, *self.sliders]
        self.of_model: list[Any] = [
            self.promise,
            self.of_class,
            self.tabs["Paint"],
            self.tabs["Look inside"],
            self.examples,
            self.steering,
            self.find,
            *self.of_view,
            self.without,
            self.levels,
            self.along,
            self.label,
            self.layer,
            self.swapped,
            self.off,
            self.temperature,
            self.models,
            self.other_model,
        ]
        self.edit_outputs: list[Any] = [*self.picture_changed, self.paint_canvas, self.touched, *self.sliders]
        self.wire_beginnings()
        self.wire_edits()
        self.wire_directions()
        self.wire_files()
        self.wire_views()
        self.wire_searches()

    def on(
        self, event: Any, act: Callable[..., Any], inputs: Any, outputs: list[Any], name: str, **options: Any
    ) -> Any:
        """Connect an event of a component to a callback, which is also in the API under its name.

        Where the sliders are among the outputs, their values follow those that the callback returns.
        """
        if outputs is self.everything or outputs is self.edit_outputs:
            act, inputs = self.with_sliders(act), [*inputs, self.view]
        # The progress indicator of the image editor does not always disappear.
        shown = {"show_progress_on": [self.now]} if self.paint_canvas in outputs else {}
        return event(sentence(act), inputs, outputs, api_name=name, **shown, **options)

    def wire_beginnings(self) -> None:
        """Connect the components that start a session: model, upload, examples, crop and samples."""
        studio, session, on, begun = self.studio, self.session, self.on, self.begun
        on(self.blocks.load, self.for_model, [self.model], self.of_model, "model_described")
        change = on(self.model.change, self.for_model, [self.model], self.of_model, "model_changed")
        on(
            change.then,
            lambda name, now: begun(studio.change_model(name, now)),
            [self.model, session],
            self.everything,
            "reopen",
        )
        on(
            self.upload.input,
            lambda name, path, label=None: begun(studio.open(name, path, class_name=label)),
            [self.model, self.upload, self.of_class],
            self.everything,
            "open",
        )
        on(self.examples.select, self.pick, [self.model], self.everything, "pick", api_visibility="private")
        on(self.recrop.click, self.crop_again, [self.model, session, *self.crop], self.everything, "crop")
        drawing = [self.model, self.seed, self.temperature]
        on(self.sample_button.click, studio.samples, drawing, [self.samples], "sample")
        on(
            self.samples.select,
            self.pick_sample,
            [*drawing, self.of_class, session],
            self.everything,
            "pick_sample",
            api_visibility="private",
        )

    def wire_edits(self) -> None:
        """Connect the components that edit: sliders, brush, units, second picture, undo and reset."""
        studio, session, on, edited = self.studio, self.session, self.on, self.edited
        on(self.undo.click, lambda now: edited(studio.undo(now)), [session], self.edit_outputs, "undo")
        on(self.reset.click, lambda now: edited(studio.reset(now)), [session], self.edit_outputs, "reset")
        movers: list[Any] = [self.without, self.levels, self.budget, *self.sliders]
        moved = gr.on(
            [each.input for each in movers],
            sentence(self.steer),
            [session, self.view, *movers],
            self.picture_changed,
            api_name="steer",
            trigger_mode="always_last",
            show_progress="hidden",
        )
        # Separate from the move, because an image editor takes much longer to update than an image.
        moved.then(self.canvas, [session], [self.paint_canvas], api_name="canvas", show_progress="hidden")
        on(
            self.apply.click,
            self.paint,
            [session, self.paint_canvas, self.label, self.stroke, self.strength],
            self.edit_outputs,
            "paint",
        )
        on(
            self.ablate.click,
            lambda now, layer, units: edited(studio.ablate(now, layer, units)),
            [session, self.layer, self.off],
            self.edit_outputs,
            "switch",
        )
        on(
            self.go.click,
            lambda now, share, levels: edited(studio.take_share(now, share, levels)),
            [session, self.share, self.swapped],
            self.edit_outputs,
            "towards",
        )

    def wire_directions(self) -> None:
        """Connect the search for directions, and their pages."""
        asked = [self.model, self.session, self.find, self.page]
        # Always the last: a letter that is typed while an earlier one is answered must not be lost.
        last = {"trigger_mode": "always_last"}
        self.on(self.find.input, self.find_directions, asked[:3], self.of_view, "find", **last)
        self.on(self.page.input, self.show_directions, asked, self.of_view, "page", **last)

    def wire_files(self) -> None:
        """Connect the downloads, and the upload of a record."""
        for button, save, name in (
            (self.take, self.studio.picture_file, "take"),
            (self.keep, self.studio.save, "keep"),
        ):
            # A download button serves the file that it had before the click, so the file is written first.
            made = self.on(button.click, save, [self.session], [self.files[name]], name)
            made.success(None, js=f"() => document.querySelector('#{name}_file').click()")
        asked = [self.model, self.record, self.code_number, self.session]
        loaded = self.on(self.record.upload, self.load, asked, self.everything, "load")
        again = self.on(
            self.code_number.submit, self.load, asked, self.everything, "load_code", api_visibility="private"
        )
        for event in (loaded, again):
            event.failure(self.offer, [self.model, self.record], [self.switch], api_name="offer")
            event.success(lambda: gr.update(visible=False), None, [self.switch], api_visibility="private")
        self.on(
            self.switch.click,
            self.open_with_owner,
            asked,
            [self.model, self.switch, *self.everything],
            "switch_model",
            api_visibility="private",
        )

    def wire_views(self) -> None:
        """Connect the components that show something without an edit."""
        studio, session, on = self.studio, self.session, self.on
        on(self.make_strip.click, self.show_strip, [session, self.along, self.without], [self.strip], "strip")
        on(
            self.look_inside.click,
            self.inside,
            [self.model, self.layer],
            [self.unit_gallery, self.off],
            "units",
        )
        on(self.count.click, self.omitted, [self.model], [self.missing], "omissions")
        on(
            self.mix.click,
            lambda now, found, path, seed, way, searched=False: studio.mix(
                now, path, seed, way == "sphere", found if searched else None
            ),
            [session, self.found_code, self.second, self.second_seed, self.sphere, self.second_found],
            [session, self.way],
            "mix",
        )
        on(self.find_nearest.click, studio.nearest, [session], [self.nearest, self.apart], "nearest")

    def wire_searches(self) -> None:
        """Connect the optimisations, which run one at a time and can be stopped."""
        alone: dict[str, Any] = {"concurrency_id": "search", "concurrency_limit": 1}
        asked = [self.other_model, self.session, self.seconds]
        searching = self.on(
            self.optimise.click,
            self.studio.search,
            asked,
            [self.found, self.progress, self.found_code],
            "search",
            **alone,
        )
        self.on(
            self.adopt.click,
            self.continue_with_code,
            [self.session, self.found_code, self.view],
            [self.model, *self.everything],
            "adopt",
        )
        self.stop.click(None, cancels=[searching], api_name="stop")
        comparing = self.on(
            self.compare.click,
            self.studio.compare,
            [self.models, self.session, self.each],
            [self.table, self.grid],
            "compare",
            **alone,
        )
        self.stop_comparing.click(None, cancels=[comparing], api_name="stop_comparing")

    # Callbacks ------------------------------------------------------------------------------------

    def for_model(self, name: str) -> list[Any]:
        """Values of the components `of_model`, which depend on the model."""
        studio, editor = self.studio, self.studio.editor(name)
        studio.warm(name)
        directions, alike = list(editor.directions), studio.alike(name)
        levels, tempered = list(editor.latent.levels), editor.latent.tempered
        classes, layers = studio.classes(name), studio.layers(name)
        named = studio.class_names(name)
        missing = "" if classes else NO_SEGMENTER
        return [
            f"**{type(editor.model).__name__}**, {size_text(*editor.model.image_shape[1:])} "
            f"pixels. {GUARANTEES[editor.latent.guarantee]}{missing}",
            gr.update(choices=[ANY_CLASS, *named], value="", visible=bool(named)),
            # Gradio does not hide tabs; the style of the page hides those that are not interactive.
            gr.update(interactive=bool(classes)),
            gr.update(interactive=bool(classes and layers)),
            studio.examples(name) if editor.encodes else [],
            gr.update(visible=bool(directions)),
            "",
            *self.shown_view(name, FIRST_PAGE, {}),
            gr.update(choices=directions, value=[]),
            gr.update(choices=levels, value=[]),
            gr.update(choices=directions, value=directions[0] if directions else None),
            gr.update(choices=classes, value=classes[0] if classes else None),
            gr.update(choices=layers, value=layers[0] if layers else None),
            gr.update(choices=levels, value=[]),
            gr.update(choices=[], value=[]),
            gr.update(interactive=tempered, value=TEMPERATURE if tempered else 1.0),
            gr.update(choices=alike, value=alike[:3]),
            gr.update(choices=alike, value=alike[-1]),
        ]

    def shown_view(self, name: str, view: View, sigmas: Mapping[str, float]) -> list[Any]:
        """Values of the components `of_view`: the sliders of the directions that a visitor looks at."""
        slots, pages = self.studio.slots(name, view), self.studio.pages(name, view.words)
        count, all_of_them = sum(map(bool, slots)), len(self.studio.editor(name).directions)
        shown = f"{count} of {all_of_them} directions are shown." if count < all_of_them else ""
        none = f"{name} has no directions yet; `flows steer find` finds some."
        groups = [any(slots[i * POOL : (i + 1) * POOL]) for i in range(len(GROUPS))]
        directions = self.studio.editor(name).directions
        return [
            view,
            shown if all_of_them else none,
            gr.update(maximum=max(2, pages), value=view.page, visible=pages > 1),
            *(gr.update(visible=each) for each in groups),
            *(
                gr.update(
                    label=each.replace("_", " "),
                    info=directions[each].doubt if each else "",
                    visible=bool(each),
                    value=sigmas.get(each, 0.0),
                )
                for each in slots
            ),
        ]

    def find_directions(self, name: str, session: Session | None, words: str | None) -> list[Any]:
        """Show the first directions that contain a text."""
        return self.show_directions(name, session, words, 1)

    def show_directions(
        self, name: str, session: Session | None, words: str | None, page: float | None
    ) -> list[Any]:
        """Show a page of the directions that contain a text; moves along hidden ones stay."""
        words = words or ""
        view = View(words, min(max(1, int(page or 1)), self.studio.pages(name, words)))
        return self.shown_view(name, view, actions.sliders_of(session.history) if session else {})

    def with_sliders(self, act: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        """Wrap a callback whose last input is the view: the values of its sliders follow its results."""

        @functools.wraps(act)
        def call(*given: Any) -> list[Any]:
            *rest, view = given
            values = act(*rest)
            return [*values, *self.standing(values[0], view)]

        # Gradio counts the parameters.
        names = [*inspect.signature(act).parameters.values()]
        required = [each.replace(default=inspect.Parameter.empty) for each in names]
        view = inspect.Parameter("view", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        call.__signature__ = inspect.Signature([*required, view])  # type: ignore[attr-defined]
        return call

    def shown(self, session: Session) -> list[Any]:
        """Values of the components `picture_changed`: the picture, its edits and predictions."""
        history, editor = session.history, self.studio.editor(session.name)
        before, after = history.start.picture, history.picture
        steps = "; ".join(edit.label for edit in history.edits) or "not edited"
        crop = views.crop_of(history.start)
        status = f"{history.start.name}{crop} · {steps} · {views.change_summary(before, after)}"
        asked = [name for name, sigma in actions.sliders_of(history).items() if sigma]
        pairs = actions.compare_readings(editor, before, after, asked=asked)
        rows = [[a.name, a.text, b.text] for a, b in pairs]
        readings = Table(["prediction", "before", "after"], rows).markdown(names=1).rstrip()
        slides = (self.enlarged(before), self.enlarged(after))
        return [session, slides, status, readings if rows else ""]

    def begun(self, session: Session) -> list[Any]:
        """Values of the components `everything`, for a new picture."""
        start = session.history.start
        crop = None
        if start.upload is not None and start.box is not None:
            crop = self.studio.file(views.cropped_from(start.upload, start.box))
        inverted = (
            self.reconstructed(session)
            if start.method or self.studio.editor(session.name).encodes
            else self.sampled(session)
        )
        return [*self.shown(session), *inverted, crop, self.canvas(session)]

    def reconstructed(self, session: Session) -> list[Any]:
        """Input, reconstruction, error, certificate and typicality for a model with an encoder."""
        picture = session.history.start.picture
        result = actions.inverted(self.studio.editor(session.name), session.history)
        error, largest = views.amplified_error(picture, result.reconstruction)
        label = f"Error: white is {largest} of 255" if largest else "Error: none"
        shown, ms = gr.update(value=self.studio.file(error), label=label), f"{1000 * result.seconds:.0f} ms."
        return [
            self.enlarged(picture),
            self.enlarged(result.reconstruction),
            shown,
            f"{result.certificate} {ms}",
            self.gauge_of(result.typicality, result.sample_typicality),
        ]

    def sampled(self, session: Session) -> list[Any]:
        """Input, reconstruction, error, certificate and typicality for a model without an encoder."""
        start, editor = session.history.start, self.studio.editor(session.name)
        certificate = f"{session.name} has no encoder; this is its sample with seed {start.seed}."
        gauge = self.gauge_of(editor.typicality(start.codes), editor.sample_typicality)
        shown = self.enlarged(start.picture)
        return [shown, shown, gr.update(value=None, label="Error"), certificate, gauge]

    def gauge_of(self, value: float, sample_typicality: Tensor) -> str | None:
        """File of the scale of typicality, see `views.gauge`; None without a map to the prior space."""
        return self.studio.file(views.gauge(value, sample_typicality)) if len(sample_typicality) else None

    def edited(self, session: Session, touched: str = "") -> list[Any]:
        """Values of the components `edit_outputs`, after an edit that is not a move by sliders."""
        return [*self.shown(session), self.canvas(session), touched]

    def canvas(self, session: Session | None) -> dict[str, Any] | None:
        """Value of the image editor: the enlarged picture as background."""
        if session is None:
            return None
        return {"background": self.enlarged(session.history.picture), "layers": [], "composite": None}

    def enlarged(self, picture: Tensor) -> str:
        """File of an enlarged picture; see `views.enlarged`."""
        return self.studio.file(views.enlarged(picture))

    def standing(self, session: Session, view: View) -> list[float]:
        """Values of the sliders."""
        sigmas = actions.sliders_of(session.history)
        return [float(sigmas.get(name, 0.0)) for name in self.studio.slots(session.name, view)]

    def steer(
        self,
        session: Session | None,
        view: View,
        without: list[str],
        levels: list[str],
        budget: float,
        *values: float,
    ) -> list[Any]:
        """Move the code by the sliders; see `Studio.steer`."""
        return self.shown(self.studio.steer(session, values, without or [], levels or [], budget, view))

    def show_strip(self, session: Session | None, name: str | None, without: list[str]) -> Image.Image:
        """Strip of the picture along a direction; see `actions.strip_along`."""
        session = require_image(session)
        editor = self.studio.editor(session.name)
        if name is None:
            raise Unsupported(f"{session.name} has no directions to show")
        pictures = actions.strip_along(editor, session.history, name, ALPHAS, without or [])
        return views.strip(pictures, [f"{alpha:+g} σ" for alpha in ALPHAS])

    def paint(
        self,
        session: Session | None,
        drawing: dict[str, Any] | None,
        label: str | None,
        stroke: Any,
        strength: float,
    ) -> list[Any]:
        """Apply a stroke; see `Studio.paint`."""
        if label is None:
            raise Unsupported("painting needs a segmenter for the images of this model, and there is none")
        after = self.studio.paint(session, drawing, label, stroke, strength)
        return self.edited(after, f"Changed: {actions.units_touched(after.history)}")

    def pick(self, name: str, event: gr.SelectData) -> list[Any]:
        """Start a session with the selected example."""
        return self.begun(self.studio.open(name, self.studio.examples(name)[event.index]))

    def pick_sample(
        self,
        name: str,
        seed: float,
        temperature: float,
        label: str | None,
        session: Session | None,
        event: gr.SelectData,
    ) -> list[Any]:
        """Start a session with the selected sample."""
        return self.begun(self.studio.sample(name, seed + event.index, temperature, label, session))

    def crop_again(self, name: str, session: Session | None, size: float, x: float, y: float) -> list[Any]:
        """Start a session with the same upload, cropped to another box."""
        return self.begun(self.studio.crop_again(name, require_image(session), size, x, y))

    def load(
        self, name: str, path: str | None, number: float | None = 0, now: Session | None = None
    ) -> list[Any]:
        """Start a session from a record or codes, with a warning if its bytes are not reproduced."""
        session, same = self.studio.load(name, path, number, now)
        if not same:
            gr.Warning(
                "Bytes differ from the saved picture: another machine or version of torch made the record."
            )
        return self.begun(session)

    def offer(self, name: str, path: str | None) -> Any:
        """Button that opens a record with its model, visible if that is another one of this page."""
        owner = self.studio.owner(name, path)
        return gr.update(visible=owner is not None, value=f"Open the record with {owner}")

    def open_with_owner(
        self, name: str, path: str | None, number: float | None, now: Session | None
    ) -> list[Any]:
        """Start a session from a record on its model, and choose that model."""
        owner = self.studio.owner(name, path)
        if owner is None:
            raise Unsupported("the record belongs to no model of this page")
        left = {} if now is None else now.leaving()
        session, _ = self.studio.load(owner, path, number, now)
        hidden = gr.update(visible=False)
        return [owner, hidden, session._replace(kept=left), *[gr.skip()] * (len(self.everything) - 1)]

    def continue_with_code(
        self, session: Session | None, found: FoundCode | None, view: View = FIRST_PAGE
    ) -> list[Any]:
        """Continue with the code that a search found; another model is chosen first, if it is one of it."""
        adopted = self.studio.adopt(session, found)
        if session is not None and adopted.name != session.name:
            return [adopted.name, adopted, *[gr.skip()] * (len(self.everything) - 1)]
        return [gr.skip(), *self.begun(adopted), *self.standing(adopted, view)]

    def inside(self, name: str, layer: str | None) -> list[Any]:
        """Show the units of a layer; see `Studio.units`."""
        if layer is None:
            raise Unsupported(f"{name} has no spatial layer: there are no units to show")
        shown, names = self.studio.units(name, layer)
        return [shown, gr.update(choices=names, value=[])]

    def omitted(self, name: str) -> str:
        """Markdown table of the omissions; see `actions.missing_classes`."""
        rows = actions.missing_classes(self.studio.editor(name))
        lines = [[label, f"{real:.1f} %", f"{generated:.1f} %"] for label, real, generated in rows]
        return (
            Table(["class, most omitted first", "test images", "samples"], lines).markdown(names=1).rstrip()
        )


def picture(label: str, name: str | None = None) -> gr.Image:
    """Component that shows an enlarged picture."""
    return gr.Image(
        label=label,
        interactive=False,
        type="pil",
        format="png",
        height=240,
        min_width=140,
        buttons=BUTTONS,
        elem_id=name,
        elem_classes="pixels",
    )


def sheet(title: str, name: str) -> gr.Image:
    """Component that shows a row of pictures below a title; a label would cover the pictures' headings."""
    gr.Markdown(title)
    return gr.Image(show_label=False, interactive=False, format="png", buttons=BUTTONS, elem_id=name)
