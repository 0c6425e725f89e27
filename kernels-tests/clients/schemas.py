"""300 JSON Schemas: every kind of value in every kind of place; and the check of formats that validators leave out."""
import datetime
import re

import jsonschema

# What the installed checker knows, and times as RFC 3339 has them, which it checks with other packages only.
FORMATS = jsonschema.FormatChecker()
TIME = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(z|[+-]([01]\d|2[0-3]):[0-5]\d)"


@FORMATS.checks("time")
def is_time(text):
    return not isinstance(text, str) or re.fullmatch(TIME, text.lower()) is not None


@FORMATS.checks("date-time", raises=ValueError)
def is_date_time(text):
    if not isinstance(text, str):
        return True
    date, t, time = text.lower().partition("t")
    return bool(t) and bool(datetime.date.fromisoformat(date)) and is_time(time)


LEAVES = {
    "word": {"type": "string", "pattern": "^[A-Z][a-z]{1,6}$"},
    "digits": {"type": "string", "pattern": "^[0-9]{2,4}(-[0-9]{2})?$"},
    "either": {"type": "string", "pattern": "^(yes|no|maybe)$"},
    "short": {"type": "string", "minLength": 1, "maxLength": 5},
    "fixed length": {"type": "string", "minLength": 3, "maxLength": 3},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "date-time": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "range": {"type": "integer", "minimum": -3, "maximum": 12},
    "exclusive": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 100},
    "big": {"type": "integer", "minimum": 1000, "maximum": 99999},
    "fives": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 95},
    "fraction": {"type": "number", "minimum": 0, "maximum": 1},
    "negative": {"type": "number", "minimum": -10.5, "exclusiveMaximum": 0},
    "enum": {"enum": ["red", "dark blue", "größe", 7, None, True]},
    "enum of lists": {"enum": [[1, 2], {"a": [None]}, "x\"y"]},
    "const": {"const": {"deep": [1, "two", {"three": 3.5}]}},
    "typed enum": {"type": "string", "enum": ["a", "b c", "d\\e"]},
    "types": {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
    "any of": {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^x{2,4}$"}]},
    "one of": {"oneOf": [{"type": "null"}, {"type": "integer", "minimum": 1, "maximum": 3}]},
}


def obj(properties, required=None, **more):
    required = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": required, **more}


PLACES = {
    "property": lambda leaf: obj({"x": leaf}),
    "optional": lambda leaf: obj({"a": {"type": "boolean"}, "x": leaf, "y": leaf}, ["a"]),
    "nested": lambda leaf: obj({"a": obj({"b": obj({"x": leaf})}), "c": leaf}),
    "list": lambda leaf: {"type": "array", "items": leaf, "minItems": 1, "maxItems": 3},
    "list in a property": lambda leaf: obj({"xs": {"type": "array", "items": leaf, "minItems": 2, "maxItems": 2}}),
    "objects in a list": lambda leaf: {"type": "array", "items": obj({"x": leaf}), "minItems": 1, "maxItems": 2},
    "tuple": lambda leaf: {"type": "array", "prefixItems": [leaf, {"type": "boolean"}], "items": False, "minItems": 2},
    "reference": lambda leaf: {"$defs": {"leaf": leaf}, **obj({"x": {"$ref": "#/$defs/leaf"}, "y": {"$ref": "#/$defs/leaf"}})},
    "recursion": lambda leaf: {
        "$defs": {"node": obj({"x": leaf, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}})},
        "$ref": "#/$defs/node",
    },
    "map": lambda leaf: {"type": "object", "additionalProperties": leaf, "minProperties": 1, "maxProperties": 2},
    "choice": lambda leaf: {"anyOf": [obj({"kind": {"const": "x"}, "x": leaf}), obj({"kind": {"const": "none"}})]},
    "merged": lambda leaf: {"allOf": [obj({"x": leaf}), obj({"b": {"type": "boolean"}})]},
}

SCHEMAS = {
    f"{leaf}, {place}": make(schema) for leaf, schema in LEAVES.items() for place, make in PLACES.items()
}
