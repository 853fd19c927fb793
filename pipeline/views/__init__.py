"""Views: what is stored of a video. A view is one module, its instance of `View`, and its place in VIEWS."""

from __future__ import annotations

from pipeline.views.flow import FLOW
from pipeline.views.pose import POSE
from pipeline.views.rgb import RGB
from pipeline.views.segmentation import SEGMENTATION
from pipeline.views.view import Extractor, NetworkInput, StoredView, View, ViewSettings

__all__ = ["VIEWS", "Extractor", "NetworkInput", "StoredView", "View", "ViewSettings"]

# All that a store may hold of a video, in the order in which people are shown them.
VIEWS: dict[str, View] = {view.name: view for view in (RGB, FLOW, SEGMENTATION, POSE)}
