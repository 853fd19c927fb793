"""What the stages of a recipe start from, checked before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pipeline.errors import UsageError, refuse_unknown
from train.methods.method import MethodSettings, Start

GIVEN_RUN = "<run>"  # in `start`: the run that a recipe of fine-tuning is given


def check(
    method: str, settings: MethodSettings, given: Mapping[str, str], earlier: Mapping[str, MethodSettings]
) -> None:
    """Raises UsageError for a start of a stage that cannot be.

    settings: of its method. given: role -> an earlier stage, a file or GIVEN_RUN. earlier: stages before, and theirs.
    """
    for role, start in settings.starts.items():
        if start.needed and role not in given:
            raise UsageError(
                f"{method} needs a trained network as {role}",
                remedy=f"start: {{{role}: <an earlier stage, or a file>}}",
            )
    for role, name in given.items():
        if role not in settings.starts:
            refuse_unknown("role", role, settings.starts)
        if name in earlier:
            _check_fit(settings.starts[role], earlier[name], role, name)
        elif name != GIVEN_RUN and not os.path.isfile(name):
            refuse_unknown("earlier stage (and there is no such file)", name, earlier, where=role)


def _check_fit(start: Start, given: MethodSettings, role: str, name: str) -> None:
    """Raises UsageError where an earlier stage lacks what a role starts from, or has it in another form."""
    if start.stream not in given.networks:
        raise UsageError(
            f"stage {name!r} has no {start.stream} network, which {role} is to start from",
            where=role,
            remedy=f"it has {', '.join(given.networks)}; give a stage that trains {start.stream}",
        )
    found, wanted = given.networks[start.stream], start.network
    for part in start.takes:
        if part not in found.parts and part not in given.gives:
            if part not in start.optional:
                raise UsageError(
                    f"stage {name!r} has no {part}, which {role} is to start from",
                    where=role,
                    remedy=f"it has {', '.join([*found.parts, *given.gives])}; give another stage",
                )
        elif part in start.shapes and given.gives[part] != start.shapes[part]:
            there, here = (" of length ".join(map(str, shape)) for shape in (given.gives[part], start.shapes[part]))
            raise UsageError(
                f"the {part} of {name!r} are {there}, and {role} has {here}",
                where=role,
                remedy="the same in both stages",
            )
        elif part in wanted.parts and (other := found.unlike(wanted, part)):
            raise UsageError(
                f"the network of {name!r} is another one: {other}",
                where=role,
                remedy="the same backbone, backbone_settings, pool, head and dim in both",
            )
