"""Turns what the consent room refuses about roles and emergencies into what faces answer and commands print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from consent.errors import EmergencyRefused, NotInForce, RoleRefused
from gateway import errors
from schemas.codes import code_list
from schemas.errors import UnknownCode
from schemas.text import _

_POINTERS = {"roles": "/role", "labels": "/compartment"}


@contextmanager
def refused() -> Iterator[None]:
    """Raise BadRequest, Conflict or NotFound in place of the consent room's errors; ``detail`` says what to do."""
    try:
        yield
    except UnknownCode as error:
        allowed = code_list(error.code_list)
        raise errors.BadRequest("unknown-code", pointer=_POINTERS.get(error.code_list), allowed=allowed) from None
    except NotInForce:
        raise errors.NotFound("not-found") from None
    except (RoleRefused, EmergencyRefused) as error:
        raise _refusal(error.reason) from None


def _refusal(reason: str) -> errors.BadRequest | errors.Conflict:
    match reason:
        case "user":
            detail = _("El usuario lleva de 1 a 64 caracteres ASCII visibles, sin espacios.")
            return errors.BadRequest("bad-user", pointer="/user", detail=detail)
        case "role-not-granted":
            granted = [role for role, spec in code_list("roles").items() if spec.get("granted_by")]
            detail = _("Este rol no se otorga: basta la palabra de la institución.")
            return errors.BadRequest("role-not-granted", pointer="/role", detail=detail, allowed=granted)
        case "system-role":
            systems = [role for role, spec in code_list("roles").items() if spec.get("acts_for_others")]
            detail = _("Este rol es de personas; un sistema no puede tenerlo.")
            return errors.BadRequest("system-role", pointer="/role", detail=detail, allowed=systems)
        case "valid-to":
            detail = _("El fin del rol debe ser posterior a este momento.")
            return errors.BadRequest("bad-validity", pointer="/valid_to", detail=detail)
        case "not-a-compartment":
            closed = [label for label, spec in code_list("labels").items() if spec.get("compartment")]
            detail = _("Esta clase de datos no es un compartimento.")
            return errors.BadRequest("not-a-compartment", pointer="/compartment", detail=detail, allowed=closed)
        case "own-grant":
            return errors.Conflict("own-grant", detail=_("Nadie se otorga un rol a sí mismo; pídalo a otra persona."))
        case "excluded-role":
            detail = _("La persona tiene un rol que no se puede juntar con este; revoque antes el otro.")
            return errors.Conflict("excluded-role", detail=detail)
        case "role-held":
            return errors.Conflict("role-held", detail=_("La persona ya tiene este rol; revóquelo para cambiarlo."))
        case "last-administrator":
            detail = _("Es el único administrador de la institución; nombre antes a otro.")
            return errors.Conflict("last-administrator", detail=detail)
        case "compartment-held":
            return errors.Conflict("compartment-held", detail=_("El rol ya tiene este compartimento."))
        case "own-emergency":
            detail = _("Quien abrió el acceso no puede revisarlo; debe hacerlo otra persona.")
            return errors.Conflict("own-emergency", detail=detail)
        case "emergency-reviewed":
            return errors.Conflict("emergency-reviewed", detail=_("El acceso ya fue revisado."))
    raise ValueError(reason)
