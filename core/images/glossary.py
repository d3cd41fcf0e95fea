"""The metrics of images: what each is called and says. `core/images/evaluation.py` measures them."""

from __future__ import annotations

from core.metrics import SHARE, Definition, table

FRECHET_DISTANCE = Definition(
    "frechet_distance",
    "Fréchet distance",
    "How far the samples' cloud of judge features lies from that of training images. Blur, missing classes and "
    "artefacts all raise it. The floor is that of test images.",
)
FRECHET_DISTANCE_TEST = Definition(
    "frechet_distance_test",
    "Fréchet distance to test images",
    "The same to test images, which no model has seen; the floor is that of training images. Copies of training images "
    "are far below the floor of the distance to training images, and not of this one.",
)
CLASS_ACCURACY = Definition(
    "class_accuracy",
    "Class accuracy",
    "Share of conditional samples in which the judge reads the class that was asked for.",
    "higher",
    SHARE,
)
PRECISION = Definition(
    "precision", "Precision", "Share of samples that fall where real images are: fidelity.", "higher", SHARE
)
RECALL = Definition("recall", "Recall", "Share of real images that fall where samples are: coverage.", "higher", SHARE)
KERNEL_DISTANCE = Definition(
    "kernel_distance",
    "Kernel distance (KID)",
    "The same comparison as the Fréchet distance without assuming Gaussian clouds, and unbiased: its expectation for "
    "perfect samples is zero.",
)
KERNEL_DISTANCE_TEST = Definition(
    "kernel_distance_test",
    "Kernel distance to test images",
    "The same to test images; for copies of training images the distance to training images is the smaller by far.",
)
NEAREST_NEIGHBOUR = Definition(
    "nearest_neighbour",
    "Nearest training image",
    "Distance from a sample to its closest training image. Far below the floor would mean copying.",
    "floor",
    "root mean square, pixels in 0..1",
)
MEMORISED = Definition(
    "memorised",
    "Memorised",
    "Share of samples whose nearest training image is at least three times closer than the next that differs from it.",
    "lower",
    SHARE,
)
CONFIDENCE = Definition(
    "confidence", "Judge confidence", "Mean probability the judge gives to the class it reads.", "higher", SHARE
)
CLASS_CHI2 = Definition(
    "class_chi2",
    "Class balance (χ²)",
    "How unevenly the samples use the classes, compared with what was asked for.",
)
REDRAWN = Definition(
    "redrawn",
    "Drawn again",
    "Share of the samples that were drawn again because, by their own evidence, they missed their class "
    "(`sample.redraw`). All other metrics are of what was kept, so they flatter the model by that much.",
    "lower",
    SHARE,
)

GLOSSARY = table(
    [
        FRECHET_DISTANCE,
        CLASS_ACCURACY,
        PRECISION,
        RECALL,
        KERNEL_DISTANCE,
        FRECHET_DISTANCE_TEST,
        KERNEL_DISTANCE_TEST,
        NEAREST_NEIGHBOUR,
        MEMORISED,
        CONFIDENCE,
        CLASS_CHI2,
        REDRAWN,
    ]
)
