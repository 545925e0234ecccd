"""Where weights came from, link by link: in words, and as the config.json of an exported folder holds it.

A folder is made to be given away, so that it keeps what the links are and not where they lay.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from hrm.checkpoint import Checkpoint, weights_sha256

ORIGIN = "origin"
"""The field of config.json; where the class is Transformers', in our object there."""
Link = dict[str, Any]
"""An entry `lineage` of a manifest; its own `lineage` is the link before it."""
_KEPT = ("format", "trial_id", "step", "sha256", "sweep", "arm", "task", "trial")
_DIGEST = re.compile("[0-9a-f]{64}")
_MOST = 100


def origin_of(checkpoint: Checkpoint) -> Link | None:
    """The checkpoint as a link, and those before it; None for one that was never written and has no digest."""
    manifest = checkpoint.manifest
    if "files" not in manifest:
        return None
    own = {"trial_id": manifest.get("trial_id"), "step": manifest["progress"].get("step")}
    return kept({**own, "sha256": weights_sha256(manifest), "lineage": manifest.get("lineage")})


def kept(link: Link) -> Link:
    """What a folder keeps of a link and of those before it."""
    own = {name: link[name] for name in _KEPT if link.get(name) is not None}
    if "sweep" in own:
        own["sweep"] = PurePath(own["sweep"]).name  # it may have been named by its directory
    return own | ({"lineage": kept(link["lineage"])} if link.get("lineage") else {})


def is_origin(found: Any) -> bool:
    """Whether it is a link, and so are all before it: with a digest, and of lines and numbers."""
    for _ in range(_MOST):
        if not isinstance(found, dict) or not _DIGEST.fullmatch(str(found.get("sha256"))):
            return False
        if not all(_is_plain(found.get(name)) for name in _KEPT):
            return False
        if (found := found.get("lineage")) is None:
            return True
    return False


def _is_plain(value: Any) -> bool:
    return value is None or type(value) is int or (isinstance(value, str) and value.isprintable())


def link_in_words(link: Link) -> str:
    """What a link is: a format; or a training, by its place in a sweep where that is known; or some other import."""
    if link.get("format"):
        return str(link["format"])
    number, step = link.get("trial_id"), link.get("step")
    if link.get("trial"):
        training = f"sweep {link.get('sweep')}, arm {link.get('arm')} on {link.get('task')}, trial {link['trial']}, "
        words = training + str(number)
    else:
        words = f"trial {number}" if number else "an import"
    return words if step is None else f"{words}, step {step}"
