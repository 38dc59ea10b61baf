"""Validators for the arguments of tools and for final answers."""

from midwatch.orchestration.validation.arguments import InvalidArguments
from midwatch.orchestration.validation.problems import Problem
from midwatch.orchestration.validation.schema_refused import SchemaRefused
from midwatch.orchestration.validation.validator import JSONSchemaValidator

__all__ = ["InvalidArguments", "JSONSchemaValidator", "Problem", "SchemaRefused"]
