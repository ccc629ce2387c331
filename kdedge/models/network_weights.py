"""Trained weights of a named network: a file of the user, or the published weights of its library."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.models.digest import state_sha256
from kdedge.models.published_weights import PublishedWeights, find_published
from kdedge_runtime.errors import UsageError

__all__ = ["NetworkWeights", "find_weights", "reload_weights"]


@dataclass(frozen=True)
class NetworkWeights:
    """Weights file of a network, with its origin."""

    network: str
    """Network with its library, and the tag of the weights if it is known."""
    file: Path
    url: str | None = None
    """Address of published weights; None for a file of the user."""
    license: str | None = None
    """License of published weights, as stated by the library."""
    recipe: str | None = None
    """Address of the training recipe of published weights, as stated by the library."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return state_sha256(self.file)

    @property
    def summary(self) -> str:
        """Description with tag, library, address and license, or the file name."""
        if self.url is None:
            return str(self.file)
        library, _, bare = self.network.partition(":")
        tag = bare.partition(".")[2] or bare
        library = {"clip": "OpenCLIP"}.get(library, library)
        terms = f"license {self.license}" if self.license else f"license not stated by {library}"
        return f"{tag} of {library}, {self.url}, {terms}" + (f", recipe {self.recipe}" if self.recipe else "")

    @property
    def record(self) -> dict[str, str | None]:
        """Record from which `reload_weights` finds the same weights.

        It has `source`, `weights` and `weights_sha256`; published weights have no file name but `url` and `license`.
        """
        known: dict[str, str | None] = {"source": self.network, "weights_sha256": self.sha256}
        if self.url is None:
            return known | {"weights": str(self.file.resolve())}
        return known | {"weights": None, "url": self.url, "license": self.license}


def find_weights(
    name: str,
    file: Path | None = None,
    *,
    pretrained: bool | None = None,
    published: Callable[[str], PublishedWeights | None] = find_published,
) -> NetworkWeights | None:
    """Find the weights of a network; published ones are downloaded if they are not in the library's cache.

    Args:
        name: name of a network.
        file: weights file of the user.
        pretrained: True requires published weights, and False forbids them. None takes them if there are any and no
            file is given.
        published: describes the published weights of a network, see `TrainingModality.find_published`.

    Returns:
        The weights, or None for random ones.

    Raises:
        UsageError: the options contradict each other, there are no published weights, or they cannot be downloaded.
        MissingDependency: A package of the library is not installed.
    """
    if file is not None:
        if pretrained is not None:
            option = "--pretrained" if pretrained else "--no-pretrained"
            raise UsageError(f"The weights are given by {file}. Remove {option}, or remove --weights.")
        return NetworkWeights(name, file)
    found = None if pretrained is False else published(name)
    if found is not None:
        return NetworkWeights(found.network, found.fetch(), found.url, found.license, found.recipe)
    if pretrained:
        raise UsageError(f"{name} has no published weights. Give a file with --weights FILE, or remove --pretrained.")
    return None


def reload_weights(
    record: Mapping[str, Any], user: str, published: Callable[[str], PublishedWeights | None] = find_published
) -> NetworkWeights:
    """Find the weights of a record again.

    Args:
        record: record from `NetworkWeights.record`.
        user: run that used the weights, for messages.
        published: describes the published weights of a network, see `find_weights`.

    Raises:
        UsageError: the weights cannot be found, or have changed.
    """
    file = None if record["weights"] is None else Path(record["weights"])
    if file is not None and not file.is_file():
        raise UsageError(f"The weights {file}, which {user} started from, no longer exist. Restore the file.")
    weights = find_weights(record["source"], file, pretrained=None if file else True, published=published)
    assert weights is not None
    if weights.sha256 != record["weights_sha256"]:
        raise UsageError(
            f"The weights {weights.file} have changed since {user} was started. Their SHA-256 is "
            f"{weights.sha256[:12]}…, expected {record['weights_sha256'][:12]}…."
        )
    return weights
