"""The page: layout, and callbacks that call a `Studio`."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData as ImagePayload
from PIL import Image
from torch import Tensor

from flows.editing.editor import GROUPS
from flows.errors import Unsupported, is_user_error
from flows.studio import actions, views
from flows.studio.session import ALPHAS, POOL, Session, Studio, require_image

BRUSH = "#ff3b30"
TEMPERATURE = 0.8
"""Of samples, until it is moved."""
BUTTONS: list[Any] = ["download", "fullscreen"]
"""Of pictures; none that sends them anywhere."""
KEPT = 3600
"""Seconds after which what a visitor has left is forgotten."""
CSS = """
.pixels img {image-rendering: pixelated} footer {display: none !important}
#table table {display: block; overflow-x: auto}
#table table, #readings table {font-size: small}
#table th, #table td, #readings th, #readings td {white-space: nowrap; padding: 3px 6px}
"""
GUARANTEES = {
    "exact": "Exact inverse: what is not edited comes back byte for byte.",
    "exact-given-w": "Exact from w on: the way from picture to w is learned.",
    "learned": "Learned encoder: close, not exact; what it loses is laid back where nothing changes.",
    "none": "No encoder: it draws pictures of its own; yours can be looked for by optimisation.",
}


def upload(label: str, name: str) -> gr.Image:
    """An image that comes as the path of its file: what is wrong with it is told by us, in a sentence."""

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
    # A subclass would have gradio write a file beside this one.
    image.preprocess = path_of  # type: ignore[method-assign]
    return image


def as_notice(error: Exception) -> gr.Error:
    """The notice that a visitor sees: the sentence of a user's mistake, or that there is a bug.

    The traceback of a bug is printed in the page's log; a visitor has no use for its message.
    """
    if is_user_error(error):
        return gr.Error(str(error), print_exception=False)
    return gr.Error("This is a bug of flows; its traceback is in the log of `flows studio`.")


def sentence(act: Callable[..., Any]) -> Callable[..., Any]:
    """What the user got wrong becomes a sentence on the page, without a traceback."""

    @functools.wraps(act)
    def told(*given: Any) -> Any:
        try:
            return act(*given)
        except Exception as error:
            raise as_notice(error) from error

    @functools.wraps(act)
    def told_on_the_way(*given: Any) -> Iterator[Any]:
        try:
            yield from act(*given)
        except Exception as error:
            raise as_notice(error) from error

    return told_on_the_way if inspect.isgeneratorfunction(act) else told


class Page:
    """The components of the page, and what happens when they are touched.

    Args:
        desk: the models.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        # Choices that a visitor's page is told when it loads; a client that is no page has these.
        editor = studio.editor(studio.first)
        self.directions = list(editor.directions)
        self.all_levels = list(editor.latent.levels)
        with gr.Blocks(
            title="flows studio", analytics_enabled=False, delete_cache=(KEPT, KEPT)
        ) as self.blocks:
            self.session = gr.State(None, time_to_live=KEPT)
            gr.Markdown(
                "# flows studio\nYour picture, its code, and the code's picture again. Upload one, move it, "
                "paint on it, take the result with you. Everything stays on this machine."
            )
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=400):
                    self.left()
                with gr.Column(scale=3, min_width=480), gr.Tabs():
                    for name, fill in (
                        ("Invert", self.invert_tab), ("Steer", self.steer_tab), ("Paint", self.paint_tab),
                        ("Look inside", self.inside_tab), ("Mix", self.mix_tab), ("Sample", self.sample_tab),
                        ("Compare", self.compare_tab),
                    ):  # fmt: skip
                        with gr.Tab(name):
                            fill()
            self.wire()

    # Layout ---------------------------------------------------------------------------------------

    def left(self) -> None:
        """The picture, what was done to it, and the way out."""
        names = list(self.studio.paths)
        self.model = gr.Dropdown(names, value=self.studio.first, label="Model", elem_id="model")
        self.promise = gr.Markdown()
        self.upload = upload("Your picture: upload or paste", "upload")
        self.examples = gr.Gallery(
            label="or pick an example", columns=8, height=90, allow_preview=False, object_fit="contain",
            elem_id="examples", elem_classes="pixels", format="png", buttons=[],
        )  # fmt: skip
        with gr.Accordion("Crop", open=False):
            self.cropped = gr.Image(
                label="What is kept", interactive=False, height=200, format="png", buttons=[]
            )
            self.crop = [
                gr.Slider(0.1, 1, 1, step=0.01, label="size"),
                gr.Slider(0, 1, 0.5, step=0.01, label="from left to right"),
                gr.Slider(0, 1, 0.5, step=0.01, label="from top to bottom"),
            ]
            self.recrop = gr.Button("Crop anew")
        self.now = gr.ImageSlider(
            label="Before and after", type="pil", format="png", interactive=False, elem_id="now",
            elem_classes="pixels", slider_position=50, height=340, max_height=340, buttons=["fullscreen"],
        )  # fmt: skip
        self.told = gr.Markdown(elem_id="told")
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
        self.record = gr.File(label="Load a record", file_types=[".safetensors"], height=80, elem_id="record")

    def invert_tab(self) -> None:
        """What comes back, and beside it a search on another model."""
        gr.Markdown(
            "The picture's code, and what is drawn from it. A flow's inverse is exact, its error map black. "
            "LIA's encoder comes close. A GAN has to be searched."
        )
        with gr.Row():
            self.given = picture("Input")
            self.back = picture("What comes back", "back")
            self.error = picture("Error")
        self.certificate = gr.Markdown(elem_id="certificate")
        self.gauge = gr.Image(
            label="How typical the code is: the band is where samples are", interactive=False, height=90,
            format="png", buttons=[],
        )  # fmt: skip
        gr.Markdown(
            "**By optimisation on another model**, which gives a code that is near, and takes its time:"
        )
        with gr.Row():
            self.other_model = gr.Dropdown(
                self.studio.alike(self.studio.first), label="Model", elem_id="other_model"
            )
            self.seconds = gr.Slider(1, 60, 10, step=1, label="seconds")
        with gr.Row():
            self.look = gr.Button("Search", elem_id="search")
            self.stop = gr.Button("Stop", elem_id="stop", variant="stop")
        self.found = picture("Found so far", "found")
        self.progress = gr.Markdown(elem_id="progress")

    def steer_tab(self) -> None:
        """A slider for each direction."""
        gr.Markdown(
            "Each slider moves the code along a direction, in standard deviations. Painting fixes what "
            "sliders did; they begin again at 0."
        )
        self.nothing = gr.Markdown()
        self.groups, self.sliders = [], []
        for group in GROUPS:
            with gr.Accordion(group.capitalize(), open=True, visible=False) as box, gr.Row():
                for _ in range(POOL):
                    self.sliders.append(gr.Slider(-3, 3, 0, step=0.1, visible=False, min_width=200))
            self.groups.append(box)
        self.readings = gr.Markdown(elem_id="readings")
        with gr.Accordion("How to move", open=False):
            self.without = gr.Dropdown(
                self.directions, multiselect=True, label="Leave alone (conditional projection)"
            )
            self.levels = gr.Dropdown(
                self.all_levels, multiselect=True, label="Levels to move; none moves all"
            )
            self.budget = gr.Slider(
                0, 0.5, 0, step=0.01, label="Typicality budget; 0 lets the code go anywhere"
            )
        with gr.Row():
            self.along = gr.Dropdown(self.directions, label="Strip along")
            self.make_strip = gr.Button("Show strip")
        self.strip = sheet("From −3 to +3 σ", "strip")

    def paint_tab(self) -> None:
        """A brush."""
        gr.Markdown(
            "Choose a thing, paint where it should be (or where it should go), and press *Apply*. Beyond the "
            "brush's margin every byte stays. The first stroke may have to wait some seconds for exemplars: "
            "the thing is painted as other pictures have it."
        )
        with gr.Row():
            self.label = gr.Dropdown(self.studio.classes(self.studio.first), label="Thing", elem_id="label")
            self.stroke = gr.Radio(["draw", "erase"], value="draw", label="Stroke", elem_id="stroke")
            self.strength = gr.Slider(0, 1, 1, step=0.05, label="strength")
        self.paint_canvas = gr.ImageEditor(
            label="Paint here", type="pil", format="png", sources=(), transforms=(), image_mode="RGBA",
            brush=gr.Brush(default_size=40, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
            layers=gr.LayerOptions(allow_additional_layers=False), canvas_size=(views.SIDE, views.SIDE),
            fixed_canvas=True, height=520, elem_id="editor", buttons=[],
        )  # fmt: skip
        self.apply = gr.Button("Apply", variant="primary", elem_id="apply")
        self.touched = gr.Markdown(elem_id="touched")

    def inside_tab(self) -> None:
        """Units, and what is missing."""
        gr.Markdown(
            "What the units of a layer respond to: the four samples that move each most, the active region "
            "outlined. Switch some off in your picture."
        )
        with gr.Row():
            layers = self.studio.layers(self.studio.first)
            self.layer = gr.Dropdown(layers, label="Layer", elem_id="layer", scale=4)
            self.look_inside = gr.Button("Look", elem_id="look_inside")
        self.unit_gallery = gr.Gallery(
            label="Units", columns=4, height=560, format="png", object_fit="contain"
        )
        self.off = gr.CheckboxGroup([], label="Units to switch off")
        self.switch = gr.Button("Switch off")
        gr.Markdown(
            "**What the model does not draw**: shares of classes in samples beside those in test images."
        )
        self.count = gr.Button("Count", elem_id="count")
        self.missing = gr.Markdown(elem_id="missing")

    def mix_tab(self) -> None:
        """The way to a second picture."""
        gr.Markdown("The way from your picture to a second one, and parts of the second in yours.")
        with gr.Row():
            self.second = upload("Second picture; none takes a sample", "second")
            with gr.Column():
                self.second_seed = gr.Number(1, label="seed of the sample", precision=0)
                self.sphere = gr.Radio(["line", "sphere"], value="line", label="Way")
                self.mix = gr.Button("Show the way", elem_id="mix")
        self.way = sheet("The way, by its share", "way")
        with gr.Row():
            self.share = gr.Slider(0, 1, 1, step=0.01, label="share of the way")
            self.swapped = gr.Dropdown(self.all_levels, multiselect=True, label="Levels; none takes all")
        self.go = gr.Button("Apply to the picture", elem_id="go")

    def sample_tab(self) -> None:
        """Pictures of the model's own."""
        gr.Markdown("Pictures that the model draws. Pick one to edit it.")
        with gr.Row():
            self.seed = gr.Number(0, label="first seed", precision=0)
            self.temperature = gr.Slider(0.1, 1.2, TEMPERATURE, step=0.05, label="temperature or truncation")
            self.draw = gr.Button("Draw", elem_id="draw")
        self.samples = gr.Gallery(
            label="Samples", columns=6, height=340, allow_preview=False, format="png", elem_id="samples",
            elem_classes="pixels", buttons=[],
        )  # fmt: skip
        self.find_nearest = gr.Button("Nearest training image")
        with gr.Row():
            self.nearest = picture("Nearest training image")
            self.apart = gr.Markdown()

    def compare_tab(self) -> None:
        """All models on this picture."""
        gr.Markdown(
            "This picture through several models: an exact inverse or an encoder where there is one, else a "
            "search of so many seconds. The figures are those of `flows compare`; *undone* is what is left "
            "after an edit of the code was drawn, inverted and taken back."
        )
        alike = self.studio.alike(self.studio.first)
        self.models = gr.CheckboxGroup(alike, value=alike[:3], label="Models of this size", elem_id="models")
        with gr.Row():
            self.each = gr.Slider(1, 30, 4, step=1, label="seconds of a search")
            self.compare = gr.Button("Compare", elem_id="compare")
            self.stop_comparing = gr.Button("Stop", variant="stop")
        self.table = gr.Markdown(elem_id="table")
        self.grid = sheet("What comes back; below, the errors, four times as bright", "grid")

    # Wiring ---------------------------------------------------------------------------------------

    def wire(self) -> None:
        """Every event to its callback; what callbacks give goes to these components, in this order."""
        self.picture_changed: list[Any] = [self.session, self.now, self.told, self.readings]
        self.everything: list[Any] = [
            *self.picture_changed, self.given, self.back, self.error, self.certificate, self.gauge,
            self.cropped, self.paint_canvas, *self.sliders,
        ]  # fmt: skip
        self.of_model: list[Any] = [
            self.promise, self.examples, self.nothing, *self.groups, *self.sliders, self.without, self.levels,
            self.along, self.label, self.layer, self.swapped, self.off, self.temperature,
            self.models, self.other_model,
        ]  # fmt: skip
        self.edit_outputs: list[Any] = [*self.picture_changed, self.paint_canvas, self.touched, *self.sliders]
        self.wire_beginnings()
        self.wire_edits()
        self.wire_files()
        self.wire_views()
        self.wire_searches()

    def on(
        self, event: Any, act: Callable[..., Any], inputs: Any, outputs: list[Any], name: str, **options: Any
    ) -> Any:
        """An event of a component to a callback, which others may call by its name."""
        # The editor's own sign that it waits does not always go away again.
        shown = {"show_progress_on": [self.now]} if self.paint_canvas in outputs else {}
        return event(sentence(act), inputs, outputs, api_name=name, **shown, **options)

    def wire_beginnings(self) -> None:
        """A model, a picture, an example, a sample."""
        studio, session, on, begun = self.studio, self.session, self.on, self.begun
        on(self.blocks.load, self.for_model, [self.model], self.of_model, "model_told")
        change = on(self.model.change, self.for_model, [self.model], self.of_model, "model_changed")
        on(change.then, lambda name, now: begun(studio.change_model(name, now)), [self.model, session],
           self.everything, "reopen")  # fmt: skip
        on(self.upload.input, lambda name, path: begun(studio.open(name, path)), [self.model, self.upload],
           self.everything, "open")  # fmt: skip
        on(self.examples.select, self.pick, [self.model], self.everything, "pick", api_visibility="private")
        on(self.recrop.click, self.crop_again, [self.model, session, *self.crop], self.everything, "crop")
        drawing = [self.model, self.seed, self.temperature]
        on(self.draw.click, studio.samples, drawing, [self.samples], "sample")
        on(self.samples.select, self.pick_sample, drawing, self.everything, "pick_sample",
           api_visibility="private")  # fmt: skip

    def wire_edits(self) -> None:
        """Sliders, the brush, units, another picture's code; and back."""
        studio, session, on, edited = self.studio, self.session, self.on, self.edited
        on(self.undo.click, lambda now: edited(studio.undo(now)), [session], self.edit_outputs, "undo")
        on(self.reset.click, lambda now: edited(studio.reset(now)), [session], self.edit_outputs, "reset")
        movers: list[Any] = [self.without, self.levels, self.budget, *self.sliders]
        moved = gr.on(
            [each.input for each in movers], sentence(self.steer), [session, *movers], self.picture_changed,
            api_name="steer", trigger_mode="always_last", show_progress="hidden",
        )  # fmt: skip
        # Apart from the move: an editor takes much longer than a picture to show another one.
        moved.then(self.canvas, [session], [self.paint_canvas], api_name="canvas", show_progress="hidden")
        on(self.apply.click, self.paint, [session, self.paint_canvas, self.label, self.stroke, self.strength],
           self.edit_outputs, "paint")  # fmt: skip
        on(self.switch.click, lambda now, layer, units: edited(studio.switch(now, layer, units)),
           [session, self.layer, self.off], self.edit_outputs, "switch")  # fmt: skip
        on(self.go.click, lambda now, share, levels: edited(studio.take_share(now, share, levels)),
           [session, self.share, self.swapped], self.edit_outputs, "towards")  # fmt: skip

    def wire_files(self) -> None:
        """Downloads, and a record that comes back."""
        for button, save, name in (
            (self.take, self.studio.picture_file, "take"), (self.keep, self.studio.save, "keep"),
        ):  # fmt: skip
            # A download button gives out the file that it had before the click: ours is made first.
            made = self.on(button.click, save, [self.session], [self.files[name]], name)
            made.success(None, js=f"() => document.querySelector('#{name}_file').click()")
        self.on(self.record.upload, self.load, [self.model, self.record], self.everything, "load")

    def wire_views(self) -> None:
        """What is shown and changes nothing."""
        studio, session, on = self.studio, self.session, self.on
        on(self.make_strip.click, self.show_strip, [session, self.along, self.without], [self.strip], "strip")
        on(self.look_inside.click, self.inside, [self.model, self.layer], [self.unit_gallery, self.off],
           "units")  # fmt: skip
        on(self.count.click, self.omitted, [self.model], [self.missing], "omissions")
        on(self.mix.click, lambda now, path, seed, way: studio.mix(now, path, seed, way == "sphere"),
           [session, self.second, self.second_seed, self.sphere], [session, self.way], "mix")  # fmt: skip
        on(self.find_nearest.click, studio.nearest, [session], [self.nearest, self.apart], "nearest")

    def wire_searches(self) -> None:
        """What takes its time, one after the other, and can be stopped."""
        alone: dict[str, Any] = {"concurrency_id": "search", "concurrency_limit": 1}
        asked = [self.other_model, self.session, self.seconds]
        searching = self.on(
            self.look.click, self.studio.search, asked, [self.found, self.progress], "search", **alone
        )
        self.stop.click(None, cancels=[searching], api_name="stop")
        comparing = self.on(self.compare.click, self.studio.compare, [self.models, self.session, self.each],
                            [self.table, self.grid], "compare", **alone)  # fmt: skip
        self.stop_comparing.click(None, cancels=[comparing], api_name="stop_comparing")

    # Callbacks ------------------------------------------------------------------------------------

    def for_model(self, name: str) -> list[Any]:
        """What the page shows of a model: `of_model`."""
        studio, editor = self.studio, self.studio.editor(name)
        studio.warm(name)
        slots, directions, alike = studio.slots(name), list(editor.directions), studio.alike(name)
        levels, tempered = list(editor.latent.levels), editor.latent.tempered
        classes, layers = studio.classes(name), studio.layers(name)
        groups = [any(slots[i * POOL : (i + 1) * POOL]) for i in range(len(GROUPS))]
        none = "" if directions else f"No directions are stored with {name}: `flows steer find` finds some."
        return [
            f"**{type(editor.model).__name__}**, {editor.model.image_shape[1]}×{editor.model.image_shape[2]} "
            f"pixels. {GUARANTEES[editor.latent.guarantee]}",
            studio.examples(name) if editor.encodes else [], none,
            *(gr.update(visible=each) for each in groups),
            *(gr.update(label=each.replace("_", " "), visible=bool(each), value=0) for each in slots),
            gr.update(choices=directions, value=[]), gr.update(choices=levels, value=[]),
            gr.update(choices=directions, value=directions[0] if directions else None),
            gr.update(choices=classes, value=classes[0] if classes else None),
            gr.update(choices=layers, value=layers[0] if layers else None),
            gr.update(choices=levels, value=[]), gr.update(choices=[], value=[]),
            gr.update(interactive=tempered, value=TEMPERATURE if tempered else 1.0),
            gr.update(choices=alike, value=alike[:3]), gr.update(choices=alike, value=alike[-1]),
        ]  # fmt: skip

    def shown(self, session: Session) -> list[Any]:
        """The picture and what was done to it: `picture_changed`."""
        history, editor = session.history, self.studio.editor(session.name)
        before, after = history.start.picture, history.picture
        steps = "; ".join(edit.label for edit in history.edits) or "not edited"
        told = f"{history.start.name} · {steps} · {views.change_summary(before, after)}"
        asked = [name for name, sigma in actions.sliders_of(history).items() if sigma]
        pairs = actions.compare_readings(editor, before, after, asked=asked)
        rows = [f"| {a.name} | {a.text} | {b.text} |" for a, b in pairs]
        readings = "\n".join(["| the predictor sees | before | after |", "| --- | --: | --: |", *rows])
        slides = (self.enlarged(before), self.enlarged(after))
        return [session, slides, told, readings if rows else ""]

    def begun(self, session: Session) -> list[Any]:
        """A new picture: `everything`."""
        start = session.history.start
        crop = None
        if start.upload is not None and start.box is not None:
            crop = self.studio.file(views.cropped_from(start.upload, start.box))
        told = self.came_back(session) if self.studio.editor(session.name).encodes else self.drawn(session)
        return [*self.shown(session), *told, crop, self.canvas(session), *self.standing(session)]

    def came_back(self, session: Session) -> list[Any]:
        """Input, what comes back, error, certificate and gauge of a model that encodes."""
        picture = session.history.start.picture
        found = actions.inverted(self.studio.editor(session.name), session.history)
        error, most = views.amplified_error(picture, found.back)
        label = f"Error: white is {most} of 255" if most else "Error: none"
        shown, told = gr.update(value=self.studio.file(error), label=label), f"{1000 * found.seconds:.0f} ms."
        return [
            self.enlarged(picture), self.enlarged(found.back), shown, f"{found.certificate} {told}",
            self.gauge_of(found.typicality, found.usual),
        ]  # fmt: skip

    def drawn(self, session: Session) -> list[Any]:
        """The same of a sample of a model that does not."""
        start, editor = session.history.start, self.studio.editor(session.name)
        told = f"{session.name} has no encoder; this is a sample of it, seed {start.seed}."
        gauge = self.gauge_of(editor.typicality(start.codes), editor.usual_typicality)
        shown = self.enlarged(start.picture)
        return [shown, shown, gr.update(value=None, label="Error"), told, gauge]

    def gauge_of(self, value: float, usual: Tensor) -> str | None:
        """See `views.gauge`; nothing where the model has no map to its prior."""
        return self.studio.file(views.gauge(value, usual)) if len(usual) else None

    def edited(self, session: Session, touched: str = "") -> list[Any]:
        """After an edit that is none of sliders: `editor_too`."""
        return [*self.shown(session), self.canvas(session), touched, *self.standing(session)]

    def canvas(self, session: Session | None) -> dict[str, Any] | None:
        """The enlarged picture to paint on."""
        if session is None:
            return None
        return {"background": self.enlarged(session.history.picture), "layers": [], "composite": None}

    def enlarged(self, picture: Tensor) -> str:
        """See `views.enlarged`; as a file."""
        return self.studio.file(views.enlarged(picture))

    def standing(self, session: Session) -> list[float]:
        """Where the sliders stand."""
        found = actions.sliders_of(session.history)
        return [float(found.get(name, 0.0)) for name in self.studio.slots(session.name)]

    def steer(
        self, session: Session | None, without: list[str], levels: list[str], budget: float, *values: float
    ) -> list[Any]:
        """See `Studio.steer`."""
        return self.shown(self.studio.steer(session, values, without or [], levels or [], budget))

    def show_strip(self, session: Session | None, name: str | None, without: list[str]) -> Image.Image:
        """See `actions.strip_along`."""
        session = require_image(session)
        editor = self.studio.editor(session.name)
        if name is None:
            raise Unsupported(f"{session.name} has no directions to show")
        found = actions.strip_along(editor, session.history, name, ALPHAS, without or [])
        return views.strip(found, [f"{alpha:+g} σ" for alpha in ALPHAS])

    def paint(
        self, session: Session | None, drawing: dict[str, Any] | None, label: str | None, stroke: Any,
        strength: float,
    ) -> list[Any]:  # fmt: skip
        """See `Studio.paint`."""
        if label is None:
            raise Unsupported("there is nothing to paint with: this model's images have no segmenter")
        after = self.studio.paint(session, drawing, label, stroke, strength)
        return self.edited(after, f"Touched: {actions.units_touched(after.history)}")

    def pick(self, name: str, event: gr.SelectData) -> list[Any]:
        """An example."""
        return self.begun(self.studio.open(name, self.studio.examples(name)[event.index]))

    def pick_sample(self, name: str, seed: float, temperature: float, event: gr.SelectData) -> list[Any]:
        """A sample."""
        return self.begun(self.studio.sample(name, seed + event.index, temperature))

    def crop_again(self, name: str, session: Session | None, size: float, x: float, y: float) -> list[Any]:
        """The upload with another box."""
        return self.begun(self.studio.crop_again(name, require_image(session), size, x, y))

    def load(self, name: str, path: str | None) -> list[Any]:
        """A record."""
        session, same = self.studio.load(name, path)
        if not same:
            gr.Warning("Not the very bytes that were saved: another machine or torch made the record.")
        return self.begun(session)

    def inside(self, name: str, layer: str | None) -> list[Any]:
        """See `Studio.units`."""
        if layer is None:
            raise Unsupported(f"no layer of {name} lies over the image: there is nothing to look at")
        shown, names = self.studio.units(name, layer)
        return [shown, gr.update(choices=names, value=[])]

    def omitted(self, name: str) -> str:
        """See `actions.missing`."""
        rows = actions.missing_classes(self.studio.editor(name))
        lines = [f"| {label} | {real:.1f} % | {drawn:.1f} % |" for label, real, drawn in rows]
        return "\n".join(
            ["| class, missing most first | test images | samples |", "| --- | --: | --: |", *lines]
        )


def picture(label: str, name: str | None = None) -> gr.Image:
    """An enlarged picture that is looked at only."""
    return gr.Image(
        label=label, interactive=False, type="pil", format="png", height=240, min_width=140,
        buttons=BUTTONS, elem_id=name, elem_classes="pixels",
    )  # fmt: skip


def sheet(title: str, name: str) -> gr.Image:
    """Pictures side by side under their words, which a label within would hide."""
    gr.Markdown(title)
    return gr.Image(show_label=False, interactive=False, format="png", buttons=BUTTONS, elem_id=name)
