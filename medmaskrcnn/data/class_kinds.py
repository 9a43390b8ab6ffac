"""What a class's name says about its objects: a finding, of which there may be any number, or an organ that is one."""

from __future__ import annotations

import re

from medmaskrcnn.structures.laterality import has_side

_LESION = re.compile(
    r"tumou?r|lesion|sarcoma|carcinoma|cancer|metasta|nodule|cyst|polyp|aneurysm|hemorrhage|haemorrhage|abscess|plaque|"
    r"stone|fracture|neoplas|malignan|o?edema|\b(?!stroma|soma)\w+oma\b"
)
_ONE_IN_A_BODY = re.compile(
    r"liver|spleen|stomach|pancreas|gall.?bladder|heart|aorta|duodenum|colon|rectum|bowel|intestine|(o?e)sophagus|"
    r"trachea|larynx|pharynx|tongue|mandible|jaw|skull|sternum|sacrum|thyroid|prostate|urinary.?bladder|^bladder|uterus|"
    r"brain|cerebell|chiasm|pituitary|spinal.?(cord|canal)|vena.?cava|\b(veins?|artery|arteries|vessels?|airways?)\b|"
    r"atrium|ventricle|myocardium|^(body|skin)$"
)  # those that are there twice (kidney, lung, adrenal gland, eye) only with a side in their name


def is_lesion(class_name: str) -> bool:
    """Whether a class is a finding, of which a patient may have any number, rather than an organ."""
    return bool(_LESION.search(class_name.lower()))


def is_single_organ(class_name: str) -> bool:
    """Whether a class is an organ that a body has once: by its name, or because the name says on which side it is."""
    plain = class_name.lower().replace("_", " ")
    return not is_lesion(plain) and (has_side(class_name) or bool(_ONE_IN_A_BODY.search(plain)))
