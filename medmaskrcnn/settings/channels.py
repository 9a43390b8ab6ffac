"""Names of a model's sequences against those that a user gives."""

from __future__ import annotations

from medmaskrcnn.errors import UnsuitableScanError
from medmaskrcnn.settings.model_file import ModelFileSettings


def names_of(settings: ModelFileSettings, count: int) -> tuple[str, ...]:
    """The model's names of its channels, or numbers as nnU-Net has them, for ``count`` sequences.

    Raises:
        UnsuitableScanError: if the model takes more or fewer.
    """
    if count != settings.scan_channels:
        raise UnsuitableScanError(f"{count} sequences were given, {wants(settings)}")
    return settings.preprocess.channel_names or tuple(f"{number:04d}" for number in range(count))


def ordered(given: tuple[str, ...], settings: ModelFileSettings) -> dict[str, str]:
    """The model's names of its channels, in its order, each with the name that the user gave it (case may differ).

    Raises:
        UnsuitableScanError: if the names are not those of the model, or their number is not.
    """
    names = settings.preprocess.channel_names or given
    by_name = {name.casefold(): name for name in given}
    if len(given) != settings.scan_channels or set(by_name) != {name.casefold() for name in names}:
        raise UnsuitableScanError(f"the sequences {', '.join(given)} were given, {wants(settings)}")
    return {name: by_name[name.casefold()] for name in names}


def wants(settings: ModelFileSettings) -> str:
    """What a model takes, as the end of a sentence."""
    count, names = settings.scan_channels, settings.preprocess.channel_names
    which = f" ({', '.join(names)})" if names else ""
    return f"model {settings.card.name} wants {count}{which}"
