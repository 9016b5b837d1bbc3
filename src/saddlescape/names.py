"""What data may be called: the names of data sets, a line on each, and what a path may lead to. No torch."""

from __future__ import annotations

# name -> (module in saddlescape.data.sources and its function, one line for people)
SOURCES: dict[str, tuple[str, str]] = {
    "digits": ("digits:load_digits", "handwritten digits, 8 x 8, 10 classes; comes with scikit-learn"),
    "cifar10": ("cifar:load_cifar", "CIFAR-10, 32 x 32, 10 classes; 50,000 + 10,000 images; --download fetches it"),
    "cifar100": ("cifar:load_cifar", "CIFAR-100, 32 x 32, 100 classes; 50,000 + 10,000 images; --download fetches it"),
    "imagenet-lt": (
        "frequency_lists:load_frequency_lists",
        "ImageNet-LT, 1,000 classes; 115,846 + 50,000 images; lists and ImageNet's folders",
    ),
    "inat2018": (
        "frequency_lists:load_frequency_lists",
        "iNaturalist 2018, 8,142 classes; 437,513 + 24,426 images; lists and train_val2018/",
    ),
}

# What DATA may be, in the words of messages and help.
TAKES = (
    "a folder with one folder of images per class (with train/ and val/ or test/, or split for you), a list file of "
    '"path label" lines or a CSV with a column of image files and one of labels, or parquet shards with images in the '
    "Hugging Face layout; or features: an .npz or .safetensors file with features [N, d] and labels"
)
