"""The Celery app of this process's fleet. Workers and Flower run it: `celery -A midwatch.workers.celery_app.app`.

A producer must not import this module: it prepares the process for Django, as every Celery worker does.
"""

from __future__ import annotations

from celery import Celery

from midwatch.workers.celery_app.fleet_app import make_app
from midwatch.workers.settings import settings

APP_SETTINGS = settings()
app = make_app(APP_SETTINGS, fixups=Celery.builtin_fixups)
