"""Param models of a workshop, kept current by a mirror that each audience owns."""

from __future__ import annotations

from koubou_panel.reactive.mirror import Changes, Mirror
from koubou_panel.reactive.models import MetricsModel, ShopModel, TaskModel, WorkerModel
from koubou_panel.reactive.series import Second, Throughput

__all__ = [
    "Changes",
    "MetricsModel",
    "Mirror",
    "Second",
    "ShopModel",
    "TaskModel",
    "Throughput",
    "WorkerModel",
]
