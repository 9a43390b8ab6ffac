"""Finds which classes of two sources are the same: of a model and a manifest, of a prediction and its reference.

Two names are one class if they are equal, if they differ only in how they are spelt (case, underscores and hyphens,
the order of the words, ``L`` for left, British or American), or if an alias says so. Whatever else two sources call the
same thing, the user has to say (``rename``): a guess here would compare a lung with a lung nodule.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medmaskrcnn.errors import InvalidOptionError

_LEAST_ALIKE = 0.6  # similarity of two names from which one is suggested for the other
_WORDS = {"l": "left", "lt": "left", "r": "right", "rt": "right"}


def normalised(name: str) -> str:
    """The form in which two spellings of one class name are equal.

    Example:
        >>> normalised("Kidney_L") == normalised("left kidney") == normalised("LeftKidney")
        True
        >>> normalised("oesophagus") == normalised("Esophagus")
        True
    """
    text = unicodedata.normalize("NFKC", name)
    text = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", text)  # camel case
    words = [word for word in re.split(r"[\W_]+", text.casefold()) if word]
    spelt = [re.sub(r"our(?=s?$)", "or", re.sub(r"[ao]e", "e", _WORDS.get(word, word))) for word in words]
    return " ".join(sorted(spelt)) or name


@dataclass(frozen=True)
class ClassMatch:
    """The classes that two sources share.

    Attributes:
        names: Names of the shared classes: those of the second source, after renaming, in its order.
        first: Name of each shared class in the first source, and its shared name; several may have one.
        second: The same for the second source.
        only_first, only_second: Classes that the other source lacks, as each source names them.
    """

    names: tuple[str, ...]
    first: Mapping[str, str] = field(default_factory=dict)
    second: Mapping[str, str] = field(default_factory=dict)
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()

    @property
    def spelt_otherwise(self) -> dict[str, str]:
        """Names of either source that differ from the shared name, and that name."""
        return {name: shared for side in (self.second, self.first) for name, shared in side.items() if name != shared}


def match_class_names(
    first: Sequence[str],
    second: Sequence[str],
    *,
    rename: Mapping[str, str] | None = None,
    aliases: Mapping[str, Sequence[str]] | None = None,
) -> ClassMatch:
    """Find the classes that two sources share.

    Args:
        first: Class names of the first source (a model, a prediction).
        second: Class names of the second (a manifest, a reference).
        rename: What the user says: a class of one source, and its name in the other; several may be given one name.
        aliases: Further names by class, as a model's card gives them for its own classes.

    Raises:
        InvalidOptionError: if ``rename`` names a class that neither source has.

    Example:
        >>> match_class_names(["liver", "kidney_left"], ["Left kidney", "spleen"]).names
        ('Left kidney',)
    """
    ours, theirs = _renamed(first, second, rename or {})
    key_of_alias = {normalised(other): normalised(name) for name, more in (aliases or {}).items() for other in more}
    spelt = [_keys(tuple(side.values())) for side in (ours, theirs)]
    names, taken = [], {}
    for name in dict.fromkeys(theirs.values()):
        key = spelt[1][name]
        same = [n for n in dict.fromkeys(ours.values()) if n == name]
        same = same or [n for n, k in spelt[0].items() if k == key]
        same = same or [n for n, k in spelt[0].items() if k == key_of_alias.get(normalised(name))]
        taken.update({n: name for n in same if n not in taken})
        if any(taken.get(n) == name for n in same):
            names.append(name)
    return ClassMatch(
        names=tuple(names),
        first={own: taken[name] for own, name in ours.items() if name in taken},
        second={own: name for own, name in theirs.items() if name in names},
        only_first=tuple(own for own, name in ours.items() if name not in taken),
        only_second=tuple(own for own, name in theirs.items() if name not in names),
    )


def nothing_shared(match: ClassMatch, whose_first: str, whose_second: str) -> InvalidOptionError:
    """The error for two sources that share no class: both lists, and an example of how to say what is the same.

    Args:
        match: Their match, without a shared class.
        whose_first: What the first is, ``"the model"``.
        whose_second: What the second is.
    """
    lists = "; ".join(
        f"{whose} has {', '.join(names) or 'none'}"
        for whose, names in ((whose_first, match.only_first), (whose_second, match.only_second))
    )
    pairs = suggested(match)
    example = next(iter(pairs.items()), None)
    say = f", for example {example[0]}={example[1]}" if example else ""
    return InvalidOptionError("rename", f"no class in common: {lists}. Say which are the same{say}")


def suggested(match: ClassMatch) -> dict[str, str]:
    """For classes of the second source that the first lacks, the likeliest name there, if one is likely."""
    found: dict[str, str] = {}
    for name in match.only_second:
        words = set(normalised(name).split())
        holding = [n for n in match.only_first if words <= set(normalised(n).split())]
        near = {normalised(n): n for n in match.only_first}
        alike = difflib.get_close_matches(normalised(name), near, n=1, cutoff=_LEAST_ALIKE)
        if len(holding) == 1:
            found[name] = holding[0]
        elif alike:
            found[name] = near[alike[0]]
        elif len(match.only_first) == len(match.only_second) == 1:
            found[name] = match.only_first[0]
    return found


def one_spelling(names: Sequence[str], rename: Mapping[str, str] | None = None) -> dict[str, str]:
    """One name for each class of several sources: its first spelling among them, or what the user renames it to.

    Args:
        names: The names of all sources, and the order that decides which spelling is the first.
        rename: New names of some of them.

    Returns:
        The one name of each of ``names`` and of each new name.

    Raises:
        InvalidOptionError: if ``rename`` names a class that is not among them.

    Example:
        >>> one_spelling(["tumour", "Tumor", "lesion"], {"lesion": "tumour"})
        {'tumour': 'tumour', 'Tumor': 'tumour', 'lesion': 'tumour'}
    """
    new_names = {}
    for old, new in (rename or {}).items():
        known = same_name(old, names)
        if known is None:
            raise InvalidOptionError("rename", f"there is no class {old!r} to rename; there are {', '.join(names)}")
        new_names[normalised(known)] = new
    first: dict[str, str] = {}
    spelt = {name: new_names.get(normalised(name), name) for name in names}
    return {
        name: first.setdefault(normalised(spelt.get(name, name)), spelt.get(name, name))
        for name in (*names, *spelt.values())
    }


def same_name(name: str, names: Sequence[str]) -> str | None:
    """The one among ``names`` that is ``name``, whatever its spelling; ``None`` if there is none."""
    if name in names:
        return name
    return next((n for n in names if normalised(n) == normalised(name)), None)


def _keys(names: Sequence[str]) -> dict[str, str]:
    """The normalised form of each name; of names that share one, the name itself, since they are different classes."""
    forms = {name: normalised(name) for name in names}
    often = Counter(forms.values())
    return {name: form if often[form] == 1 else name for name, form in forms.items()}


def _renamed(
    first: Sequence[str], second: Sequence[str], rename: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Each class of both sources and its name once renamed.

    A class is renamed in the source that has it where the other has the new name; else in each that has it.
    """
    renamed: tuple[dict[str, str], dict[str, str]] = ({name: name for name in first}, {name: name for name in second})
    for old, new in rename.items():
        holders = [side for side, names in enumerate((first, second)) if same_name(old, names)]
        if not holders:
            raise InvalidOptionError(
                "rename", f"neither side has a class {old!r} to rename; there are {', '.join((*first, *second))}"
            )
        fitting = [side for side in holders if same_name(new, (second, first)[side])]
        for side in fitting[-1:] or holders:
            name = same_name(old, (first, second)[side])
            assert name is not None
            renamed[side][name] = same_name(new, (second, first)[side]) or new
    return renamed
