"""Many series on one machine or many: found by rules, run by workers, remembered in a ledger.

The room and the public function share a name: once the room is imported, ``medmaskrcnn.batch`` is this module, so it
can be called like the function.
"""

import sys
from types import ModuleType
from typing import Any


class _CallableRoom(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """:func:`medmaskrcnn.batch.api.batch`."""
        from medmaskrcnn.batch.api import batch  # here, because every part of the room imports this file first

        return batch(*arguments, **named)


sys.modules[__name__].__class__ = _CallableRoom
