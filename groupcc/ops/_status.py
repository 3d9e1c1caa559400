"""Which backends run here, and which ops each of them runs."""

from __future__ import annotations

from typing import Any

from groupcc.ops._dispatch import BACKENDS, Dispatched, registered_ops

__all__ = ["backend_status"]


def backend_status() -> dict[str, str]:
    """For each backend, which ops it runs here, or why it is off."""
    status = {}
    for backend in BACKENDS:
        reasons = {shown: op.why_off(backend) for op in registered_ops().values() if (shown := _shown(op, backend))}
        running = [shown for shown, reason in reasons.items() if reason is None]
        if running:
            status[backend] = f"on: {', '.join(running)}"
        else:
            status[backend] = f"off: {next(iter(reasons.values()), 'this version has no such kernels')}"
    return status


def _shown(op: Dispatched[Any, Any], backend: str) -> str | None:
    """The op as a backend's list shows it: its name, with its parts if these alone run it; None if nothing does."""
    if backend == "reference" or backend in op.backends:
        return op.name
    return f"{op.name} (by {', '.join(op.composed[backend])})" if backend in op.composed else None
