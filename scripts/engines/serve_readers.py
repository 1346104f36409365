"""DuckDB, Polars and delta-rs in one process.

Reads one JSON object per line and answers with one JSON line. {"count": folder, "columns": names} gives what each engine finds, or
its message. {"do": name, "table": folder, "where": predicate} lets delta-rs or Polars change the table.
"""

import json
import sys

import deltalake
import duckdb
import duckdb_ext
import polars
from deltalake import DeltaTable

duck = duckdb.connect()
# The extension is in a package: no extension repository is asked.
duck.execute("SET extension_directory = ?", [duckdb_ext.get_extension_dir()])
duck.execute("SET autoinstall_known_extensions = false")
duck.execute("SET threads = 1")
duck.execute("LOAD delta")



def of_duckdb(table, columns):
    columns = [f'"{column}"' for column in columns]
    found = f"count(DISTINCT ({', '.join(columns)}))" if len(columns) > 1 else f"CAST(sum({columns[0]}) AS BIGINT)"
    return duck.execute(f"SELECT count(*), {found} FROM delta_scan(?)", [table]).fetchone()


def of_frame(rows, columns):
    """Every column was read, since a count alone is answered from the statistics."""
    return rows.height, rows.select(columns).n_unique() if len(columns) > 1 else int(rows[columns[0]].sum())


# The rows, and how many events they are of; of a table with one column, its sum.
READERS = {
    "duckdb": of_duckdb,
    "polars": lambda table, columns: of_frame(polars.scan_delta(table).collect(), columns),
    "delta-rs": lambda table, columns: of_frame(polars.from_arrow(DeltaTable(table).to_pyarrow_table()), columns),
}


def vacuum(table):
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)


def checkpoint(table):
    table.create_checkpoint()
    table.cleanup_metadata()


def append(table, where):
    rows = polars.scan_delta(table.table_uri).filter(polars.sql_expr(where)).collect()
    rows.write_delta(table.table_uri, mode="append")


CHANGES = {
    "compact": lambda table, where: table.optimize.compact(),
    "z-order": lambda table, where: table.optimize.z_order([where]),
    "delete": lambda table, where: table.delete(where),
    "update": lambda table, where: table.update(updates={where[0]: where[1]}, predicate=where[2]),
    "vacuum": lambda table, where: vacuum(table),
    "checkpoint": lambda table, where: checkpoint(table),
    "append": append,
    "constraint": lambda table, where: table.alter.add_constraint({"other_engines": where}),
    "property": lambda table, where: table.alter.set_table_properties(dict([where])),
    "add-column": lambda table, where: table.alter.add_columns([deltalake.Field("note", "string")]),
    "feature": lambda table, where: table.alter.add_feature(
        getattr(deltalake.TableFeatures, where), allow_protocol_versions_increase=True
    ),
    "restore": lambda table, where: table.restore(table.version() - where),
}


def answer(request):
    if "count" in request:
        counts = {}
        for name, count in READERS.items():
            try:
                counts[name] = list(count(request["count"], request["columns"]))
            except BaseException as error:  # noqa: BLE001  (Rust panics are no Exception)
                counts[name] = f"{type(error).__name__}: {error}"
        return counts
    try:
        return {"rows": [str(CHANGES[request["do"]](DeltaTable(request["table"]), request.get("where")))]}
    except BaseException as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
