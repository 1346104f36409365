#!/usr/bin/env python3
"""Reads a Delta table with another implementation than the daemon's tests do, and prints a report as JSON.

    check_delta.py TABLE [--columns a,b] [--sort-by a,b] [--version N] [--rows-json FILE]

Needs the packages deltalake and pyarrow. The report has: version, num_rows, files, partition_columns, schema (name, type,
nullable and comment of every column) and sha256: the digest of the rows, in the order of their values, as the JSON
lines that --rows-json writes. In these, a timestamp is its microseconds since the epoch (UTC), a date its ISO form, a
decimal a string, and bytes are base64.
"""

import argparse
import base64
import datetime
import decimal
import hashlib
import json
import os
import sys

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
MICROSECOND = datetime.timedelta(microseconds=1)


def plain(value):
    """The value in a form that JSON holds without loss."""
    if isinstance(value, datetime.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return (aware - EPOCH) // MICROSECOND
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def to_json(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sort_key(row, columns):
    """Orders rows by the values of their columns, nulls first; other types are compared as JSON."""

    def of(value):
        if value is None:
            return (0, 0, "")
        if isinstance(value, (int, float)):
            return (1, value, "")
        return (2, 0, value if isinstance(value, str) else to_json(value))

    return [of(row[column]) for column in columns]


def column_type(kind):
    """`string`, `decimal(18,2)`, or for nested types the JSON of the Delta protocol."""
    kind = json.loads(kind.to_json())
    return kind if isinstance(kind, str) else to_json(kind)


def chosen(option, names):
    columns = [name for name in option.split(",") if name] if option else names
    unknown = [name for name in columns if name not in names]
    if unknown:
        sys.exit(f"check_delta: no such column: {', '.join(unknown)}; the table has {', '.join(names)}")
    return columns


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="path or URL of the table")
    parser.add_argument("--columns", help="the columns to read, in this order; default: all")
    parser.add_argument("--sort-by", help="the columns to sort by; default: all that are read")
    parser.add_argument("--version", type=int, help="the version to read; default: the latest")
    parser.add_argument("--rows-json", metavar="FILE", help="write the rows there, sorted, a JSON object a line")
    args = parser.parse_args()

    try:
        import pyarrow
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError
    except ImportError as error:
        sys.exit(f"check_delta: {error}; install it: pip install 'deltalake==1.*' pyarrow")

    try:
        table = DeltaTable(args.table, version=args.version)
    except TableNotFoundError:
        sys.exit(f"check_delta: no Delta table at {args.table}")
    fields = table.schema().fields
    names = [field.name for field in fields]
    columns = chosen(args.columns, names)
    sort_by = chosen(args.sort_by, names) if args.sort_by else columns

    # Columns that only sort are read, too, and omitted from the output. The other columns break ties, so that the digest
    # does not depend on how the rows are distributed over files.
    read = columns + [name for name in sort_by if name not in columns]
    rows = [plain(row) for row in pyarrow.table(table.to_pyarrow_table(columns=read)).to_pylist()]
    rows.sort(key=lambda row: sort_key(row, sort_by + columns))
    lines = [to_json({column: row[column] for column in columns}) + "\n" for row in rows]

    if args.rows_json:
        with open(args.rows_json, "w", encoding="utf-8") as out:
            out.writelines(lines)
    report = {
        "version": table.version(),
        "num_rows": len(rows),
        "files": len(table.file_uris()),
        "partition_columns": table.metadata().partition_columns,
        "schema": [
            {
                "name": field.name,
                "type": column_type(field.type),
                "nullable": field.nullable,
                "comment": field.metadata.get("comment"),
            }
            for field in fields
        ],
        "sha256": hashlib.sha256("".join(lines).encode("utf-8")).hexdigest(),
    }
    json.dump(report, sys.stdout, indent=2, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
    # Without this, Arrow's threads may abort the interpreter while it exits.
    sys.stdout.flush()
    os._exit(0)
