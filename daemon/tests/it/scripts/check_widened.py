#!/usr/bin/env python3
"""Checks that a column `id` was widened from integer to long between version 2 of a table and its newest version.

    check_widened.py TABLE

Version 2 has the ids 0 to 3, and the newest version 0 to 9. Needs the packages deltalake and pyarrow.
"""

import os
import sys

from deltalake import DeltaTable


def ids(table, kind):
    column = table.to_pyarrow_table()["id"]
    if str(column.type) != kind:
        sys.exit(f"version {table.version()}: id has type {column.type}, expected {kind}")
    return sorted(column.to_pylist())


def check(table, kind, expected):
    found = ids(table, kind)
    if found != expected:
        sys.exit(f"version {table.version()}: the ids are {found}, expected {expected}")


check(DeltaTable(sys.argv[1]), "int64", list(range(10)))
check(DeltaTable(sys.argv[1], version=2), "int32", list(range(4)))
sys.stdout.flush()
# A normal exit can abort in Arrow's threads.
os._exit(0)
