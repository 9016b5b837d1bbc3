"""Pretrained networks from elsewhere: images -> features, with the preprocessing that they were trained with.

A backbone is named

- ``timm/<name>``, ``torchvision/<name>``, ``transformers/<name or local folder>``: of these packages (extras of ours),
  which fetch their weights unless they are on the machine;
- ``package.module:function``: what a function of yours returns, an ``nn.Module``. It is called with ``num_classes=0``
  if it takes that keyword, and must then leave out the classifier, as timm does. If the network has an attribute
  ``feature_dim``, its outputs are the features. Else its last ``nn.Linear`` is the classifier and is left out. Outputs
  [N, d, H, W] are averaged over H and W. The network may bring its preprocessing as an attribute ``default_cfg``
  (timm's words: ``input_size``, ``interpolation``, ``mean``, ``std``, ``crop_pct``); else it is ImageNet's, at 224
  pixels. The module is also looked for in the working folder. Whoever opens the run imports it again;
- one of our own networks (``resnet50`` has torchvision's names of parameters), with weights from a file.

The head is ours (``saddlescape.models.heads``).
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import inspect
import json
import pickle
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from saddlescape.disk import expanded, reason
from saddlescape.errors import InputError, MissingExtraError
from saddlescape.models.network import Network

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
INTERPOLATIONS = ("bilinear", "bicubic")
CLASSIFIERS = ("fc", "_fc", "head", "heads", "linear", "classifier")  # usual names of what a file may have beyond us
PREFIXES = ("", "module.", "backbone.", "model.")  # what training with a wrapper puts before the names
EXAMPLE = "resnet50, timm/resnet50, torchvision/resnet50, transformers/microsoft/resnet-50, my_module:my_function"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A network without its classifier, and how its images were made.

    Shorter side scaled to ``resize_to``, the centre of ``image_size`` x ``image_size`` cut out, ``mean`` and ``std`` of
    pixels in [0, 1]; ``assumed``: ImageNet's, for the network brings none. ``architecture`` (JSON) is what transformers
    builds the network from where its folder is missing.
    """

    network: nn.Module
    image_size: int = 224
    resize_to: int = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET["mean"]
    std: tuple[float, ...] = IMAGENET["std"]
    architecture: str = ""
    assumed: bool = False


class Backbone(Network):
    """A network without its classifier (``backbone``) and a head of ours (``classifier``).

    ``forward``: images [N, 3 or 1, H, W] -> logits [N, C]; ``features``: -> [N, d].

    Args:
        input_size: Images of another size are first scaled to this many pixels a side; 0: never.
        mirror: Features are the mean of those of an image and of its mirror image.
    """

    head_name = "classifier"

    def __init__(
        self, backbone: nn.Module, head: nn.Module, feature_dim: int, input_size: int = 0,
        interpolation: str = "bilinear", in_channels: int = 3, mirror: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = backbone
        self.classifier = head
        self.feature_dim = feature_dim
        self.input_size, self.interpolation, self.in_channels = input_size, interpolation, in_channels
        self.mirror = mirror

    def features(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.in_channels:
            x = x.expand(-1, self.in_channels, -1, -1)  # grey images for a network of three channels
        if self.input_size and x.shape[-2:] != (self.input_size, self.input_size):
            x = F.interpolate(x, size=(self.input_size, self.input_size), mode=self.interpolation, align_corners=False)
        features = pooled(self.backbone(x))
        return (features + pooled(self.backbone(x.flip(-1)))) / 2 if self.mirror else features


def pooled(output: Any) -> Tensor:
    """[N, d] from what a network without its classifier returns. Raises InputError for what cannot be features."""
    output = getattr(output, "logits", output)  # of transformers
    if not isinstance(output, Tensor) or output.ndim not in (2, 4):
        what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"a backbone returns features [N, d] or [N, d, H, W]; this one returns {what}")
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output


def is_backbone(name: str) -> bool:
    """Whether a model's name is that of a network from elsewhere."""
    return ":" in name or name.partition("/")[0] in PROVIDERS


def load_backbone(
    name: str,
    weights: str | Path = "",
    *,
    pretrained: bool = True,
    architecture: str = "",
    own: Callable[[], nn.Module] | None = None,
    **options: Any,
) -> Source:
    """Build the network called ``name`` (see the module) without its classifier.

    Args:
        weights: A file of weights (safetensors, or what ``torch.load(weights_only=True)`` reads) in place of the
            provider's own.
        pretrained: Without ``weights``: take the provider's own; False: random weights.
        own: What builds one of our own networks, whose head is an ``nn.Identity``.
        options: The provider's own options for its network.

    Raises:
        MissingExtraError: the package is not installed.
        InputError: an unknown name; weights that cannot be fetched, read or do not fit.
    """
    if own is not None:
        if pretrained and not weights:
            raise InputError(f"backbone {name!r} brings no weights: give --weights FILE, or use timm/{name}")
        source = Source(network=own(), assumed=True)
    elif ":" in name:
        source = _of_function(name, options)
    else:
        provider, _, rest = name.partition("/")
        if provider not in PROVIDERS:
            raise InputError(f"unknown backbone {name!r}; examples are {EXAMPLE}")
        source = PROVIDERS[provider](rest, pretrained and not weights, options, architecture)
    if weights:
        load_weights(source.network, expanded(weights), name)
    source.network.float()
    return source


def feature_dim(network: nn.Module, name: str, channels: int, size: int) -> int:
    """d, by one image of ``size`` x ``size``. Raises InputError where the network does not take such images."""
    training = network.training
    try:
        with torch.no_grad():
            width = int(pooled(network.eval()(torch.zeros(1, channels, size, size))).shape[1])
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        if isinstance(error, InputError):
            raise InputError(f"backbone {name!r}: {error}") from error
        raise InputError(
            f"backbone {name!r} does not take images [N, {channels}, {size}, {size}] ({reason(error)}); "
            "choose its own size with --image-size"
        ) from error
    network.train(training)
    return width


def weights_hash(network: nn.Module) -> str:
    """SHA-256 (16 hex digits) of all parameters and buffers with their names, but for what LoRA adds."""
    digest = hashlib.sha256()
    state = {k.replace(".base_layer.", "."): v for k, v in network.state_dict().items() if ".lora_" not in k}
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Fill a network without its classifier from a file.

    Raises:
        InputError: the file is missing or is not of weights; a weight is missing, has another shape, or is left over
            and is not of a classifier.
    """
    given, wanted = read_weights(path), network.state_dict()
    stripped = [{k.removeprefix(a).removeprefix(b): v for k, v in given.items()} for a in PREFIXES for b in PREFIXES]
    found = max(stripped, key=lambda state: len(wanted.keys() & state.keys()))
    why = ""
    missing = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
    shapes = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    surplus = [
        key for key in found if key not in wanted and not key.startswith(tuple(f"{word}." for word in CLASSIFIERS))
    ]
    if missing:
        why = f"it lacks {missing[0]!r} and {len(missing) - 1} others of {len(wanted)}"
    elif shapes:
        why = f"{shapes[0]!r} is {list(found[shapes[0]].shape)} there and {list(wanted[shapes[0]].shape)} here"
    elif surplus:
        why = f"it has {surplus[0]!r}, which the network lacks, and {len(surplus) - 1} others"
    if why:
        raise InputError(f"{path} does not fit backbone {name!r}: {why}; give the weights of this network")
    network.load_state_dict({key: found[key] for key in wanted if key in found}, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict, or the one inside a training checkpoint. Raises InputError for anything else."""
    repair = "give a .safetensors file, or one that torch.save wrote of a state dict"
    try:
        raw: Any = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError) as error:
        why = reason(error) if isinstance(error, OSError) else "not a file of weights"
        raise InputError(f"weights {path} cannot be read ({why}); {repair}") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping):
            raw = raw[key]
    tensors = {k: v for k, v in raw.items() if isinstance(v, Tensor)} if isinstance(raw, Mapping) else {}
    if not tensors:
        raise InputError(f"weights {path} cannot be read (no weights in it); {repair}")
    return tensors


def without_classifier(network: nn.Module, name: str) -> nn.Module:
    """``network`` with its last ``nn.Linear`` replaced by nothing. Raises InputError where there is none."""
    found = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise InputError(
            f"backbone {name!r}: its classifier is not an nn.Linear; leave it out and set feature_dim on the network"
        )
    network.set_submodule(found[-1], nn.Identity())
    return network


def _extra(package: str, name: str) -> ModuleType:
    """The package behind ``package/name``, imported now."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        # timm itself needs torchvision, so the missing package may be that one.
        raise MissingExtraError(f"model '{package}/{name}'", package, error.name or package) from error
    except Exception as error:  # a torchvision of another torch fails where it registers its operators
        raise InputError(
            f"{package} does not import here ({reason(error)}): install the release that belongs to torch "
            f"{torch.__version__}, or use another backbone"
        ) from error


def _fetched(name: str, build: Callable[[], Any]) -> Any:
    """What ``build`` returns; any failure of a download as one line."""
    try:
        return build()
    except Exception as error:  # of urllib, requests, hugging face and the disk
        raise InputError(
            f"the weights of backbone {name!r} cannot be fetched ({reason(error)}): connect to the network once, "
            "or give --weights FILE"
        ) from error


def _by_config(network: nn.Module, given: Any) -> Source:
    """timm's description of a preprocessing, as far as it goes."""
    words = dict(given) if isinstance(given, Mapping) else {}
    size = int(words.get("input_size", (3, 224, 224))[-1])
    interpolation = words.get("interpolation", "bilinear")
    return Source(
        network=network,
        image_size=size,
        resize_to=max(size, int(size / float(words.get("crop_pct", 0.875)))),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
        mean=tuple(map(float, words.get("mean", IMAGENET["mean"]))),
        std=tuple(map(float, words.get("std", IMAGENET["std"]))),
        assumed="mean" not in words,
    )


def _of_function(name: str, options: dict[str, Any]) -> Source:
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"backbone {name!r} cannot be imported ({reason(error)}): work in the folder of {module.split('.')[0]}.py, "
            "or add it to PYTHONPATH"
        ) from error
    finally:
        sys.path.remove(here)
    try:
        bare = "num_classes" in inspect.signature(build).parameters
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for answers
            network = build(**options, **({"num_classes": 0} if bare else {}))
    except Exception as error:
        raise InputError(f"backbone {name!r}: {function} failed ({type(error).__name__}: {reason(error)})") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"backbone {name!r}: {function} returned {type(network).__name__}, not a torch.nn.Module")
    source = _by_config(network, getattr(network, "default_cfg", None))
    if not bare and not isinstance(getattr(network, "feature_dim", None), int):
        without_classifier(network, name)
    return source


def _timm(name: str, pretrained: bool, options: dict[str, Any], architecture: str) -> Source:
    timm = _extra("timm", name)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join('timm/' + match for match in near)}?" if near else "see timm.list_models()"
        raise InputError(f"timm has no model {name!r}; {hint}")
    # num_classes=0 is timm's way to ask for pooled features in place of logits.
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except TypeError as error:
        raise InputError(f"timm could not build {name!r} with {options}: {error}") from error
    if pretrained:
        network = _fetched(
            f"timm/{name}", lambda: timm.create_model(name, pretrained=True, num_classes=0, **options)
        )
    return _by_config(network, getattr(network, "pretrained_cfg", None))


def _torchvision(name: str, pretrained: bool, options: dict[str, Any], architecture: str) -> Source:
    models = _extra("torchvision", name).models
    if name not in models.list_models(module=models):
        near = difflib.get_close_matches(name, models.list_models(module=models), n=3)
        hint = f"did you mean torchvision/{near[0]}?" if near else "see torchvision.models.list_models()"
        raise InputError(f"torchvision has no classifier {name!r}; {hint}")
    entry = models.get_model_weights(name).DEFAULT
    network = _fetched(f"torchvision/{name}", lambda: models.get_model(name, weights=entry if pretrained else None))
    made = entry.transforms()
    interpolation = str(getattr(made.interpolation, "value", made.interpolation))
    return Source(
        network=without_classifier(network, f"torchvision/{name}"), image_size=made.crop_size[0],
        resize_to=max(made.resize_size[0], made.crop_size[0]), mean=tuple(made.mean), std=tuple(made.std),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bilinear",
    )  # fmt: skip


def _transformers(name: str, pretrained: bool, options: dict[str, Any], architecture: str) -> Source:
    hub = _extra("transformers", name)
    called, auto = f"transformers/{name}", hub.AutoModelForImageClassification
    words: dict[str, Any] = {}
    if architecture and not pretrained:
        given = json.loads(architecture)
        network = auto.from_config(hub.AutoConfig.for_model(given.pop("model_type"), **given))
    else:
        config = _fetched(called, lambda: hub.AutoConfig.from_pretrained(name))
        if pretrained:
            network, about = _fetched(called, lambda: auto.from_pretrained(name, output_loading_info=True))
            lost = sorted(key for key in about["missing_keys"] if not key.startswith(CLASSIFIERS))
            if lost:
                raise InputError(f"backbone {called!r}: its files lack {lost[0]!r}; give the folder of a trained model")
        else:
            network = auto.from_config(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                words = hub.ImageProcessingMixin.get_image_processor_dict(name)[0]
            except OSError:  # a model without a description of its images
                words = {}
        architecture = network.config.to_json_string(use_diff=True)
    size = words.get("crop_size") if words.get("do_center_crop") else words.get("size")
    default = getattr(network.config, "image_size", None) or 224
    side = _side(size, default if isinstance(default, int) else 224)
    share = float(words.get("crop_pct") or 1.0)
    return Source(
        network=without_classifier(network, called), image_size=side, architecture=architecture,
        resize_to=max(side, _side(words.get("size"), side) if words.get("do_center_crop") else int(side / share)),
        interpolation="bicubic" if words.get("resample") == 3 else "bilinear",
        mean=tuple(words.get("image_mean") or IMAGENET["mean"]), std=tuple(words.get("image_std") or IMAGENET["std"]),
        assumed=not words.get("image_mean"),
    )  # fmt: skip


def _side(size: Any, default: int) -> int:
    """Pixels a side of transformers' ``{"height": 224, "width": 224}``, ``{"shortest_edge": 224}`` or ``224``."""
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    return int(size) if size else default


PROVIDERS: dict[str, Callable[[str, bool, dict[str, Any], str], Source]] = {
    "timm": _timm, "torchvision": _torchvision, "transformers": _transformers,
}  # fmt: skip
