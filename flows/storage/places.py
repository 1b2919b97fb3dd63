"""Places of checkpoints: folders, the index of models, the Hugging Face hub."""

from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from flows.core.checks import did_you_mean
from flows.errors import CheckpointError
from flows.storage.files import StrPath, expand
from flows.storage.index import CONFIG_FILE, LOOK_UP_SECONDS, find_folder, folder_of, own_folder, read_index

HUB = "hf-hub:"
"""Beginning of the name of a hub repository; nothing else is looked up on the hub."""


def locate(checkpoint: StrPath) -> StrPath:
    """Folder of a checkpoint, given by its path or by its name in the index; other names as they are.

    A model of the index that is not here is downloaded. In a clone, a name may also be that of a run in
    `checkpoints/`.

    Raises:
        CheckpointError: The model cannot be downloaded, or is not the one of the index.
    """
    if place := find_here(checkpoint):
        return place
    return folder_of(str(checkpoint)) if str(checkpoint) in read_index() else checkpoint


def find_here(checkpoint: StrPath) -> Path | None:
    """Path of a checkpoint that is on this machine, or None; nothing is fetched."""
    local = expand(checkpoint)
    if local.exists():
        return local
    name = str(checkpoint)
    if name in read_index():
        return find_folder(name)
    run = own_folder(name)
    return run if len(local.parts) == 1 and run.is_dir() else None


def config_file(checkpoint: StrPath) -> Path:
    """Path of the `config.json` of a checkpoint that `locate` found, or of a hub repository.

    Raises:
        CheckpointError: There is no such folder, model or repository.
    """
    if repository := hub_repository(checkpoint):
        return from_hub(repository, CONFIG_FILE)
    path = Path(checkpoint)
    empty = not path.name and not (path / CONFIG_FILE).is_file()
    if path.is_file() or empty:
        what = "the name of the checkpoint is empty" if empty else f"{path} is a file"
        raise CheckpointError(f"{what}: expected the folder of a checkpoint, or a name of `flows models`")
    if path.exists():
        return path / CONFIG_FILE
    like_a_repository = str(checkpoint).count("/") == 1
    hub = f"; for the Hugging Face hub write {HUB}{checkpoint}" if like_a_repository else ""
    raise CheckpointError(
        f"there is no folder {checkpoint}: expected one of `flows train`, or a name of `flows models`{hub}."
        f"{did_you_mean(path.name, list(read_index()))}"
    )


def hub_repository(checkpoint: StrPath) -> str | None:
    """Name of the hub repository that is given as `hf-hub:owner/name`; None for everything else."""
    name = str(checkpoint)
    return name.removeprefix(HUB) if name.startswith(HUB) else None


def from_hub(repo: str, name: str, local_files_only: bool = False, **options: Any) -> Path:
    """Path of a file of a hub repository: downloaded, or cached if the hub does not answer.

    The hub is asked once before the download, which would try for half a minute to reach it.

    Raises:
        CheckpointError: There is no such repository or file, it needs a token, or the hub does not answer and
            the file is not cached.
    """
    reason = ""
    try:
        if not local_files_only:
            reason = _silence(hf_hub_url(repo, name, revision=options.get("revision")), options.get("token"))
        local = local_files_only or bool(reason)
        return Path(hf_hub_download(repo, name, local_files_only=local, **options))
    except LocalEntryNotFoundError as error:
        why = f"the hub does not answer ({reason}), and" if reason else "without a look-up"
        raise CheckpointError(f"{HUB}{repo}: {why} {name} is not cached here") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"{HUB}{repo} is no available hub repository with {name} ({error})") from error


def _silence(url: str, token: str | bool | None) -> str:
    """Why the hub does not answer; empty if it does."""
    try:
        get_hf_file_metadata(url, token=token, timeout=LOOK_UP_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        raise
    except Exception as error:  # of the HTTP library, which differs between versions of the hub's
        return str(error)
    return ""
