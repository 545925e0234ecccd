"""A file of the original code, read so that nothing in it runs.

It must be a plain archive as torch.save writes it, of the size and with the checksums that it states; only tensors in
plain containers are unpickled from it.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm.errors import Problem, SpecError


@dataclass(frozen=True, slots=True)
class StateDict:
    """A state dict as a file holds it, on the CPU."""

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    step: int | None
    """From a name such as `step_1234`."""

    @property
    def dtypes(self) -> dict[str, int]:
        """How many tensors there are of each type."""
        names = [dtype_name(tensor) for tensor in self.tensors.values()]
        return {name: names.count(name) for name in sorted(set(names))}


def dtype_name(tensor: Tensor) -> str:
    """Such as `bfloat16`."""
    return str(tensor.dtype).removeprefix("torch.")


def read_state_dict(path: Path, mapped: bool = False) -> StateDict:
    """Read a file that torch.save wrote; no code of it runs. Raises SpecError for anything but a state dict.

    `mapped`: the tensors stay on the disk until they are looked at; the file must not change meanwhile.
    """
    if not path.is_file():
        rule = "is a folder, not a file" if path.is_dir() else "there is no such file"
        raise refused(path, rule, "Give the file that the original code saved, such as step_1234")
    try:
        _examine_archive(path)
        tensors = _tensors(path, torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except SpecError:
        raise
    except OSError as error:
        raise refused(path, f"cannot be read: {error.strerror}", "Change its rights") from error
    except Exception as error:  # the readers raise whatever a damaged byte leads them to
        raise _unreadable(path, error) from error
    step = re.search(r"step_(\d+)", path.stem)
    return StateDict(path, digest, tensors, int(step[1]) if step else None)


def _examine_archive(path: Path) -> None:
    """Refuse what torch.save never writes, before anything is unpacked, and what does not match its checksums."""
    if not zipfile.is_zipfile(path):
        raise refused(path, "is not an archive as torch.save writes it, or it is cut off", "Give an intact file")
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise refused(path, "unpacks to more than it holds, which torch.save never writes", "Do not trust it")
        damaged = archive.testzip()
    if damaged is not None:
        raise refused(path, f"is damaged: {damaged} does not match its checksum", "Copy or download it again")


def _tensors(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The state dict in what was loaded (URM wraps it), if it is one."""
    if isinstance(loaded, dict) and "model_state_dict" in loaded:
        loaded = loaded["model_state_dict"]
    is_dict = isinstance(loaded, dict) and bool(loaded)
    if not is_dict or not all(isinstance(key, str) and _is_plain(value) for key, value in loaded.items()):
        kind = f"a {type(loaded).__name__}" + (" that holds more than plain tensors of floats" if is_dict else "")
        raise refused(path, f"holds {kind}, not a state dict", "Save model.state_dict() with torch.save")
    if sum(tensor.numel() * tensor.element_size() for tensor in loaded.values()) > path.stat().st_size:
        raise refused(path, "holds tensors that are larger than the file", "Do not trust it")
    return dict(loaded)


def _is_plain(value: Any) -> bool:
    if type(value) not in (Tensor, torch.nn.Parameter) or not value.numel():
        return False
    return bool(value.is_floating_point() and value.layout == torch.strided and value.device.type == "cpu")


def _unreadable(path: Path, error: Exception) -> SpecError:
    """The refusal of a file on which torch.load failed. Its own message invites to load without protection."""
    code = re.search(r"(?:GLOBAL|Unsupported class) (\w+(?:\.\w+)*)", str(error))
    if code:
        rule = f"holds {code[1]}, which is code and no tensor; none of it was run"
        return refused(path, rule, "Save model.state_dict() with torch.save, not the whole model")
    reason = str(error).splitlines()[0][:120] if str(error) else "it ends early"
    return refused(path, f"is damaged, or no file of torch.save: {reason}", "Copy or download it again")


def refused(path: Path, rule: str, way_out: str) -> SpecError:
    """The one problem of a file."""
    return SpecError(Problem(str(path), rule, way_out))
