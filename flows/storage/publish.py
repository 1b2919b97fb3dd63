"""Publishing of the models of the index on the Hugging Face hub.

    python -m flows.storage.publish owner/name [--model NAME …] [--dry-run]

One commit to one repository has a folder for every model, with the files and digests of the index and the
pictures of its card. Their addresses, with the hash of that commit, are then written into the index; a wheel
that is built afterwards downloads what it does not have.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from flows.core.checks import check_name
from flows.errors import UserError, program
from flows.storage.files import file_digest
from flows.storage.index import INDEX_FILE, Entry, read_index, write_index
from flows.storage.package import packaged

CARD_FILE = "README.md"
NAMED = ("config.yaml", "report.json")
"""Files that cards name, besides pictures."""


@dataclass(frozen=True)
class Upload:
    """One file to publish.

    Attributes:
        path: File here.
        place: Path in the repository.
        bytes: Size.
    """

    path: Path
    place: str
    bytes: int


def planned(entries: Mapping[str, Entry], names: Sequence[str], place: Path) -> list[Upload]:
    """Files of models, each compared with its digest in the index.

    Args:
        entries: Entries of the index.
        names: Models to publish; empty for all.
        place: Folder of the models.

    Raises:
        UserError: There is no such model, or a file differs from the index.
    """
    uploads = []
    for name in names or list(entries):
        check_name("", name, entries, "flows models")
        for file, expected in entries[name].files.items():
            path = place / name / file
            if not path.is_file() or file_digest(path) != expected.sha256:
                raise UserError(
                    f"{path} is not the file of the index; `python -m flows.reports.index` renews it"
                )
            uploads.append(Upload(path, f"{name}/{file}", expected.bytes))
        uploads += [Upload(path, f"{name}/{path.name}", path.stat().st_size) for path in shown(place / name)]
    return uploads


def shown(folder: Path) -> list[Path]:
    """Files that a card shows or names: they are published, and not downloaded with the model."""
    return sorted(path for path in folder.iterdir() if path.suffix == ".png" or path.name in NAMED)


def card(entries: Mapping[str, Entry]) -> str:
    """Card of the repository: a line for every model."""
    lines = [
        f"- [{name}]({name}): {entry.model_type} of {entry.data}, {entry.licence}"
        for name, entry in entries.items()
    ]
    head = "---\nlicense: apache-2.0\nlibrary_name: flows\n---\n\n# Models of flows\n\n"
    return (
        head + "\n".join(lines) + '\n\n```python\nimport flows\n\nmodel = flows.load("fashion-glow")\n```\n'
    )


def publish(repository: str, names: Sequence[str], api: HfApi) -> dict[str, str]:
    """Upload models in one commit; returns the address of each model.

    Raises:
        UserError: A file differs from the index, or the hub refuses.
    """
    entries, place = read_index(), packaged("checkpoints")
    uploads = planned(entries, names, place)
    operations = [CommitOperationAdd(each.place, each.path) for each in uploads]
    operations.append(CommitOperationAdd(CARD_FILE, card(entries).encode()))
    try:
        api.create_repo(repository, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message=f"{len(uploads)} files of flows")
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{repository}: the hub refuses ({error}); `hf auth login` stores a token") from error
    base = f"{api.endpoint}/{repository}/resolve/{commit.oid}"
    return {name: f"{base}/{name}" for name in names or list(entries)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Publish, or say what would be published."""
    parser = argparse.ArgumentParser(prog="python -m flows.storage.publish", description=__doc__)
    parser.add_argument("repository", help="owner/name on the hub")
    parser.add_argument("--model", nargs="+", default=[], help="names of models; by default all of the index")
    parser.add_argument("--dry-run", action="store_true", help="say what would be published, and stop")
    given = parser.parse_args(arguments)
    try:
        validate_repo_id(given.repository)
    except HFValidationError as error:
        raise UserError(f"expected owner/name, got {given.repository!r} ({error})") from error
    place = packaged("checkpoints")
    uploads = planned(read_index(), given.model, place)
    if given.dry_run:
        for each in uploads:
            print(f"{each.bytes:>12,}  {each.place}")
        total = sum(each.bytes for each in uploads)
        print(f"{len(uploads)} files, {total:,} bytes to {given.repository}; nothing was sent or written")
        return
    addresses = publish(given.repository, given.model, HfApi())
    found = {name: replace(entry, url=addresses.get(name, entry.url)) for name, entry in read_index().items()}
    write_index(found, place / INDEX_FILE)
    print(f"published to {given.repository}; {INDEX_FILE} has the addresses of {len(addresses)} models")


if __name__ == "__main__":
    with program():
        main()
