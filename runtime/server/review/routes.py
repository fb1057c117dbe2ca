"""All routes of the review, for all files of a server."""

from __future__ import annotations

from fastapi import APIRouter

from ..service import Service
from .cluster_routes import cluster_routes
from .pair_routes import pair_routes
from .reviews import Reviews


def review_routes(service: Service) -> APIRouter:
    """The routes below `/api/v1/pairs` and `/api/v1/clusters`."""
    reviews = Reviews(service)
    service.at_end(reviews.stop, reviews.close)
    router = APIRouter()
    router.include_router(pair_routes(reviews))
    router.include_router(cluster_routes(reviews))
    return router
