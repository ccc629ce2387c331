"""Zero-shot classifiers: contrastive image and text encoders of OpenCLIP, named `clip:MODEL/TAG`.

The text embeddings of the class names are the last matrix of the network (Radford et al., Learning Transferable Visual
Models From Natural Language Supervision, ICML 2021, §3.1.4). This module does not import torch, which takes seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kdedge_runtime.errors import UsageError

__all__ = ["DEFAULT_PROMPT", "ZeroShot", "is_clip"]

DEFAULT_PROMPT = "a photo of a {}"
_CLIP = "clip:"


@dataclass(frozen=True)
class ZeroShot:
    """Classes of a zero-shot classifier.

    Raises:
        UsageError: A class is empty or repeated, or a prompt has no place for the class.
    """

    classes: tuple[str, ...]
    """Names of the classes as they appear in the prompts, in the order of the outputs."""
    prompts: tuple[str, ...] = (DEFAULT_PROMPT,)
    """Sentences with `{}` in place of the class; the embeddings of several are averaged."""

    def __post_init__(self) -> None:
        empty = [name for name in self.classes if not name.strip()]
        if len(self.classes) < 2 or empty or len(set(self.classes)) < len(self.classes):
            raise UsageError(
                f"The classes {', '.join(map(repr, self.classes))} are too few or repeated. Expected two or more "
                'different names, such as --classes "cat,dog,empty bowl".'
            )
        for prompt in self.prompts:
            if prompt.count("{}") != 1 or prompt.replace("{}", "").strip("{}") != prompt.replace("{}", ""):
                raise UsageError(f'The prompt {prompt!r} needs one {{}} for the class, as in "{DEFAULT_PROMPT}".')

    @classmethod
    def of(cls, classes: Sequence[str], prompts: Sequence[str]) -> "ZeroShot":
        """Return the classes with these prompts, or with the default one."""
        return cls(tuple(name.strip() for name in classes), tuple(prompts) or (DEFAULT_PROMPT,))

    @property
    def summary(self) -> str:
        """Classes in order, and the prompts."""
        return f"{', '.join(self.classes)}; in {', '.join(map(repr, self.prompts))}"


def is_clip(name: str) -> bool:
    """Return True if a name refers to a network of OpenCLIP."""
    return name.startswith(_CLIP)
