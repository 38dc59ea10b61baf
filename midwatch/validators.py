"""Validators for tools and answers."""

from midwatch.orchestration.validation.arguments import InvalidArguments
from midwatch.orchestration.validation.problems import Problem
from midwatch.orchestration.validation.validator import JSONSchemaValidator

__all__ = ["InvalidArguments", "JSONSchemaValidator", "Problem"]
