#!/usr/bin/env python3
"""Validates JSON documents against a JSON Schema: {"schema": ..., "documents": [...]} on standard input.

Prints what is wrong with each document, as a list of lists of texts. Exits with 77 where the validator is missing.
"""

import json
import sys

try:
    from jsonschema import Draft7Validator, FormatChecker
except ImportError as error:
    print(f"{error}; apt-get install python3-jsonschema", file=sys.stderr)
    sys.exit(77)

given = json.load(sys.stdin)
Draft7Validator.check_schema(given["schema"])
validator = Draft7Validator(given["schema"], format_checker=FormatChecker())


def told(document):
    return sorted(f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(document))


json.dump([told(document) for document in given["documents"]], sys.stdout)
