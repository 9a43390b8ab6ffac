"""Coded terms of class names: SNOMED CT terms for organs and tumours.

A segment carries a category (anatomical structure or morphologically abnormal structure), a type (liver, neoplasm)
and, where they apply, a modifier (left) and the region that a tumour lies in. The terms are those of the context
groups of DICOM PS3.16 (CID 7150 and those it includes). Names are compared in lower case with ``_`` and ``-`` as
spaces; a side before or after the name becomes the modifier, and ``liver tumour`` a neoplasm whose region is the liver.

A model's card adds to the table or overrides it (:attr:`medmaskrcnn.settings.ModelCard.codes`). A name in neither
gets a private code, scheme ``99MEDMASKRCNN``, whose value is a hash of the name, so that segments of the same class
still share a code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PRIVATE_SCHEME = "99MEDMASKRCNN"
_MAX_MEANING = 64  # characters of Code Meaning (0008,0104), VR LO


@dataclass(frozen=True)
class Term:
    """One coded concept.

    Attributes:
        value: Code Value (0008,0100), ``"10200004"``.
        meaning: Code Meaning (0008,0104), ``"Liver"``.
        scheme: Coding Scheme Designator (0008,0102); SNOMED CT is ``"SCT"``.
    """

    value: str
    meaning: str
    scheme: str = "SCT"


@dataclass(frozen=True)
class Coding:
    """What a segment is, in coded terms.

    Attributes:
        category: Segmented Property Category Code (0062,0003).
        type: Segmented Property Type Code (0062,000F).
        modifier: Segmented Property Type Modifier Code (0062,0011): a side, or ``None``.
        region: Anatomic Region (0008,2218) that an abnormality lies in, or ``None``.
        region_modifier: The region's side, or ``None``.
    """

    category: Term
    type: Term
    modifier: Term | None = None
    region: Term | None = None
    region_modifier: Term | None = None


ANATOMY = Term("91723000", "Anatomical Structure")
MORPHOLOGY = Term("49755003", "Morphologically Abnormal Structure")
TISSUE = Term("85756007", "Tissue")

SIDES: dict[str, Term] = {
    "left": Term("7771000", "Left"),
    "right": Term("24028007", "Right"),
    "anterior": Term("255549009", "Anterior"),
    "posterior": Term("255551008", "Posterior"),
}

STRUCTURES: dict[str, Term] = {
    "body": Term("38266002", "Entire body"),
    "adrenal gland": Term("23451007", "Adrenal gland"),
    "amygdala": Term("4958002", "Amygdala"),
    "aorta": Term("15825003", "Aorta"),
    "artery": Term("51114001", "Artery"),
    "atrium left": Term("82471001", "Left atrium"),
    "atrium right": Term("73829009", "Right atrium"),
    "blood vessel": Term("59820001", "Blood vessel"),
    "bone": Term("3138006", "Bone"),
    "brachiocephalic trunk": Term("12691009", "Brachiocephalic trunk"),
    "brain": Term("12738006", "Brain"),
    "breast": Term("76752008", "Breast"),
    "carotid artery": Term("69105007", "Carotid artery"),
    "cerebellum": Term("113305005", "Cerebellum"),
    "clavicle": Term("51299004", "Clavicle"),
    "colon": Term("71854001", "Colon"),
    "costal cartilage": Term("50016007", "Costal cartilage"),
    "duodenum": Term("38848004", "Duodenum"),
    "esophagus": Term("32849002", "Esophagus"),
    "eye": Term("81745001", "Eye"),
    "femur": Term("71341001", "Femur"),
    "gallbladder": Term("28231008", "Gallbladder"),
    "heart": Term("80891009", "Heart"),
    "hip": Term("29836001", "Hip"),
    "hippocampus": Term("5366008", "Hippocampus"),
    "humerus": Term("85050009", "Humerus"),
    "iliac artery": Term("10293006", "Iliac artery"),
    "iliac vein": Term("244411005", "Iliac vein"),
    "inferior vena cava": Term("64131007", "Inferior vena cava"),
    "kidney": Term("64033007", "Kidney"),
    "larynx": Term("4596009", "Larynx"),
    "liver": Term("10200004", "Liver"),
    "lung": Term("39607008", "Lung"),
    "lung lower lobe": Term("90572001", "Lower lobe of lung"),
    "lung middle lobe": Term("40020002", "Middle lobe of lung"),
    "lung upper lobe": Term("45653009", "Upper lobe of lung"),
    "lymph node": Term("59441001", "Lymph node"),
    "mandible": Term("91609006", "Mandible"),
    "mediastinum": Term("72410000", "Mediastinum"),
    "muscle": Term("91727004", "Muscle"),
    "nucleus": Term("84640000", "Nucleus"),
    "optic nerve": Term("18234004", "Optic nerve"),
    "ovary": Term("15497006", "Ovary"),
    "pancreas": Term("15776009", "Pancreas"),
    "parotid gland": Term("45289007", "Parotid gland"),
    "portal vein": Term("32764006", "Portal vein"),
    "prostate": Term("41216001", "Prostate"),
    "pulmonary artery": Term("81040000", "Pulmonary artery"),
    "pulmonary vein": Term("430757002", "Pulmonary vein"),
    "rectum": Term("34402009", "Rectum"),
    "rib": Term("113197003", "Rib"),
    "sacrum": Term("54735007", "Sacrum"),
    "scapula": Term("79601000", "Scapula"),
    "seminal vesicle": Term("64739004", "Seminal vesicle"),
    "skin": Term("39937001", "Skin"),
    "skull": Term("89546000", "Skull"),
    "small intestine": Term("30315005", "Small intestine"),
    "spinal cord": Term("2748008", "Spinal cord"),
    "spleen": Term("78961009", "Spleen"),
    "splenic vein": Term("35819009", "Splenic vein"),
    "sternum": Term("56873002", "Sternum"),
    "stomach": Term("69695003", "Stomach"),
    "subclavian artery": Term("36765005", "Subclavian artery"),
    "superior vena cava": Term("48345005", "Superior vena cava"),
    "testis": Term("40689003", "Testis"),
    "thalamus": Term("119406000", "Thalamus"),
    "thyroid": Term("69748006", "Thyroid"),
    "thymus": Term("9875009", "Thymus gland"),
    "tongue": Term("21974007", "Tongue"),
    "tooth": Term("38199008", "Tooth"),
    "trachea": Term("44567001", "Trachea"),
    "ureter": Term("87953007", "Ureter"),
    "urinary bladder": Term("89837001", "Bladder"),
    "uterus": Term("35039007", "Uterus"),
    "vein": Term("29092000", "Vein"),
    "ventricle left": Term("87878005", "Left ventricle"),
    "ventricle right": Term("53085002", "Right ventricle"),
    "vertebra": Term("51282000", "Vertebra"),
}
"""Anatomy, by the name that a model's class may have."""

CHANGES: dict[str, Term] = {
    "cyst": Term("367643001", "Cyst"),
    "edema": Term("79654002", "Edema"),
    "hemorrhage": Term("50960005", "Hemorrhage"),
    "lesion": Term("52988006", "Lesion"),
    "mass": Term("118538004", "Mass"),
    "metastasis": Term("128462008", "Metastasis"),
    "necrosis": Term("6574001", "Necrosis"),
    "nodule": Term("27925004", "Nodule"),
    "tumour": Term("108369006", "Neoplasm"),
}
"""What is not normal anatomy, by the name that a model's class may have."""

_SYNONYMS = {
    "bladder": "urinary bladder",
    "cancer": "tumour",
    "cell nucleus": "nucleus",
    "heart atrium left": "atrium left",
    "heart atrium right": "atrium right",
    "heart ventricle left": "ventricle left",
    "heart ventricle right": "ventricle right",
    "left atrium": "atrium left",
    "left ventricle": "ventricle left",
    "right atrium": "atrium right",
    "right ventricle": "ventricle right",
    "gross tumour volume": "tumour",
    "gtv": "tumour",
    "ivc": "inferior vena cava",
    "metastases": "metastasis",
    "neoplasm": "tumour",
    "oedema": "edema",
    "haemorrhage": "hemorrhage",
    "oesophagus": "esophagus",
    "small bowel": "small intestine",
    "thyroid gland": "thyroid",
    "thymus gland": "thymus",
    "tumor": "tumour",
}
_SHORT_SIDES = {"l": "left", "r": "right", "lt": "left", "rt": "right"}
_NUMBERED = re.compile(r"(vertebra|rib)e?s?( left| right)? [ctls]?\d+")  # "vertebrae L5", "rib left 7"


def coding_of(name: str, extra: Mapping[str, Any] | None = None) -> Coding:
    """The coded terms of a class name.

    Args:
        name: The class's name, ``"left kidney"``.
        extra: Codes of the model's card by class name, as in JSON: objects with ``type`` and, optionally,
            ``category``, ``modifier`` and ``region``, each ``[scheme, value, meaning]``.

    Returns:
        Its terms; in the private scheme if the name is neither on the card nor in the table.

    Example:
        >>> coding_of("left kidney").type.meaning, coding_of("left kidney").modifier.meaning
        ('Kidney', 'Left')
        >>> coding_of("liver tumour").type.meaning, coding_of("liver tumour").region.meaning
        ('Neoplasm', 'Liver')
    """
    if extra and name in extra:
        return _from_card(extra[name])
    words = _normal(name)
    structure, side = _structure(words)
    if structure is not None:
        return Coding(ANATOMY, structure, side)
    for change in sorted(CHANGES, key=len, reverse=True):
        if words == change:
            return Coding(MORPHOLOGY, CHANGES[change])
        if words.endswith(f" {change}") or words.startswith(f"{change} "):
            region, side = _structure(_without(words, change))
            if region is not None:
                return Coding(MORPHOLOGY, CHANGES[change], region=region, region_modifier=side)
    return Coding(TISSUE, _private(name))


def _normal(name: str) -> str:
    words = re.sub(r"[\s_\-.,]+", " ", name).strip().lower()
    for foreign, ours in _SYNONYMS.items():
        words = re.sub(rf"(?<!\w){re.escape(foreign)}(?!\w)", ours, words)
    return words.replace("urinary urinary", "urinary")


def _without(words: str, change: str) -> str:
    rest = re.sub(rf"(^| ){re.escape(change)}($| )", " ", words)
    return re.sub(r"^(of|in) (the )?", "", rest.strip()).strip()


def _structure(words: str) -> tuple[Term | None, Term | None]:
    """The structure that ``words`` name, and its side; ``(None, None)`` if they name none."""
    if (term := _singular(words)) is not None:
        return term, None
    first, _, tail = words.partition(" ")
    head, _, last = words.rpartition(" ")
    for side, rest in ((first, tail), (last, head)):
        side = _SHORT_SIDES.get(side, side)
        if side in SIDES and (term := _singular(rest)) is not None:
            return term, SIDES[side]
    if level := _NUMBERED.fullmatch(words):
        return STRUCTURES[level[1]], SIDES.get((level[2] or "").strip())
    return None, None


def _singular(words: str) -> Term | None:
    for form in (words, words.removesuffix("s"), words.removesuffix("e"), re.sub(r"ies$", "y", words)):
        if form in STRUCTURES:
            return STRUCTURES[form]
    return None


def _private(name: str) -> Term:
    value = hashlib.sha256(name.encode()).hexdigest()[:16].upper()
    return Term(value, name.strip()[:_MAX_MEANING] or "unnamed", PRIVATE_SCHEME)


def _from_card(entry: Mapping[str, Any]) -> Coding:
    def term(key: str) -> Term | None:
        found = entry.get(key)
        return None if found is None else Term(str(found[1]), str(found[2])[:_MAX_MEANING], str(found[0]))

    kind = term("type")
    if kind is None:
        raise ValueError(f"a code of a model's card needs a type [scheme, value, meaning], got {dict(entry)!r}")
    return Coding(term("category") or ANATOMY, kind, term("modifier"), term("region"))
