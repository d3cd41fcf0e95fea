"""On what terms an older model is measured on a newer model's data: images of one shape, classes matched by name."""

from __future__ import annotations

from pathlib import Path

from core.config import validate
from core.errors import IncomparableError
from core.images.classes import NONE, class_indices
from core.images.config import ImageModel, ImageSample
from core.images.model import ImageShape
from core.requests import Section
from core.storage.model_folder import DESCRIPTION, read_description


def equal_terms(champion: Path, challenger: Path, dataset: Path, sample: Section) -> Section:
    """The section `sample` of the challenger's job, for the champion to draw the same classes by its own numbers.

    Raises:
        IncomparableError: its images have another shape, or it does not know a class that is asked for.
        UserError: a model's description is damaged.
    """
    (theirs, conditional), (ours, _) = described(champion), described(challenger)
    if theirs.size != ours.size:
        raise IncomparableError(f"the champion makes images of {_shown(theirs)}, the data set has {_shown(ours)}")
    if theirs.class_names == ours.class_names:
        return sample
    wanted = validate(ImageSample, sample, "sample").labels
    if not conditional:
        if any(str(label) != str(NONE) for label in wanted or ()):
            raise IncomparableError("the champion knows no classes, and sample.labels asks for some")
        return sample
    asked = range(len(ours.class_names)) if wanted is None else class_indices(wanted, ours.class_names, "sample.labels")
    names = [ours.class_names[label] if label >= 0 else None for label in asked]
    unknown = sorted({name for name in names if name is not None} - set(theirs.class_names))
    if unknown:
        raise IncomparableError(f"the champion does not know the class {', '.join(unknown[:5])}")
    return {**sample, "labels": [-1 if name is None else theirs.class_names.index(name) for name in names]}


def described(folder: Path) -> tuple[ImageShape, bool]:
    """Shape and classes of a model's images, and whether it draws by class."""
    description = read_description(folder, "images")
    where = f"{folder / DESCRIPTION}"
    shape = validate(ImageShape, description.get("data"), f"{where}: data")
    return shape, validate(ImageModel, description.get("model"), f"{where}: model").conditional


def _shown(shape: ImageShape) -> str:
    return f"{shape.height}x{shape.width} in {'colour' if shape.channels == 3 else 'grey'}"
