"""Bring-up: the modules of a model, or the model cut after each of them, as engines of their own, in their order."""

from __future__ import annotations

from harness.bringup.bring_up import BringingUp, Request, bring_up, bring_up_opened

__all__ = ["BringingUp", "Request", "bring_up", "bring_up_opened"]
