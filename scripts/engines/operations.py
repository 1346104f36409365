"""What other engines do to a table, and what silverd must do then.

Each operation is a list of statements for Spark, or requests to delta-rs and Polars (serve_readers.py), in which {table},
{where} and so on stand for what `words` says. `expects` says what silverd does with the table:

    on          it goes on, and its rows are right
    refused     it does not write the table, says why, and loses nothing; other tables go on

`verify` are the kinds of findings for bronze and for Silver afterwards, "" for none.
"""

from dataclasses import dataclass, field

ON, REFUSED = "on", "refused"


@dataclass
class Operation:
    name: str
    statements: list
    expects: str = ON
    # What `silverd verify` reports as an error: foreign rows, or nothing.
    verify: bool = True
    # What gives the table back, in the engine's words.
    undo: list = field(default_factory=list)
    # Columns, or rows, are others afterwards; a rebuild of Silver makes its rows again.
    changes_rows: bool = False
    # Log entries of before are made older by so many days, since engines delete only those of past days.
    older_days: int = 0
    # Whether `silverd verify` reports that silverd cannot write the table.
    not_writable: bool = False
    # Whether the Silver table is rebuilt though nothing is wrong with it.
    rebuild: bool = False


def properties(**values):
    pairs = ", ".join(f"'delta.{key.replace('__', '.')}' = '{value}'" for key, value in values.items())
    return f"ALTER TABLE {{table}} SET TBLPROPERTIES ({pairs})"


def drop_feature(name):
    """Spark first stops the use of a feature, and drops it once no entry of the log needs it."""
    # Without the wait of a day for readers of older versions.
    return [
        properties(dropFeatureTruncateHistory__retentionDuration="interval 0 seconds"),
        {"or": f"ALTER TABLE {{table}} DROP FEATURE `{name}`"},
        {"or": f"ALTER TABLE {{table}} DROP FEATURE `{name}` TRUNCATE HISTORY"},
    ]


CHECK_OFF = {"set": ["spark.databricks.delta.retentionDurationCheck.enabled", "false"]}
CHECK_ON = {"set": ["spark.databricks.delta.retentionDurationCheck.enabled", "true"]}
# A commit without effect.
OTHER = "ALTER TABLE {table} SET TBLPROPERTIES ('other' = '1')"
MAPPING = properties(columnMapping__mode="name", minReaderVersion=2, minWriterVersion=5)

OPERATIONS = [
    Operation("optimize", ["OPTIMIZE {table}"]),
    Operation("zorder", ["OPTIMIZE {table} ZORDER BY ({key})"]),
    Operation("delete", ["DELETE FROM {table} WHERE {where}"], verify=False, changes_rows=True),
    Operation("delete-day", ["DELETE FROM {table} WHERE event_date = '{day}'"], verify=False, changes_rows=True),
    Operation("update", ["UPDATE {table} SET {text} = 'edited' WHERE {where}"], verify=False, changes_rows=True),
    Operation("merge", ["""
        MERGE INTO {table} AS old USING (
            SELECT * FROM {table} WHERE {where}
            UNION ALL SELECT {moved} FROM {table} WHERE {where} AND {offset} < 5) AS new
        ON old.event_date = '{day}' AND old.{topic} = new.{topic} AND old.{partition} = new.{partition} AND old.{offset} = new.{offset}
        WHEN MATCHED AND new.{offset} % 2 = 0 THEN DELETE
        WHEN MATCHED THEN UPDATE SET {text} = 'merged'
        WHEN NOT MATCHED THEN INSERT *"""],
        verify=False, changes_rows=True),
    Operation("insert", ["INSERT INTO {table} SELECT * FROM {table} WHERE {where}"], verify=False, changes_rows=True),
    Operation("restore", ["RESTORE TABLE {table} TO VERSION AS OF {before}"], verify=False, changes_rows=True),
    Operation("vacuum-0", ["OPTIMIZE {table}", CHECK_OFF, "VACUUM {table} RETAIN 0 HOURS", CHECK_ON]),
    Operation("vacuum", ["OPTIMIZE {table}", "VACUUM {table}"]),
    Operation("purge", ["REORG TABLE {table} APPLY (PURGE)"]),
    Operation("add-column", ["ALTER TABLE {table} ADD COLUMN (note STRING COMMENT 'of another engine')"]),
    Operation("add-column-update", [
        "ALTER TABLE {table} ADD COLUMN (note STRING)", "UPDATE {table} SET note = 'seen' WHERE {where}",
    ], verify=False, changes_rows=True),
    Operation("add-column-first", ["ALTER TABLE {table} ADD COLUMN (note STRING FIRST)"]),
    Operation("move-column", ["ALTER TABLE {table} ALTER COLUMN {offset} FIRST"]),
    Operation("comment", ["ALTER TABLE {table} ALTER COLUMN {text} COMMENT 'of another engine'"]),
    Operation("drop-not-null", ["ALTER TABLE {table} ALTER COLUMN {required} DROP NOT NULL"]),
    Operation("not-null", ["ALTER TABLE {table} ALTER COLUMN {nullable} SET NOT NULL"]),
    Operation("column-mapping", [MAPPING], REFUSED, not_writable=True, undo=[
        properties(columnMapping__mode="none"), *drop_feature("columnMapping")]),
    Operation("rename-column", [MAPPING, "ALTER TABLE {table} RENAME COLUMN {text} TO renamed"], REFUSED, not_writable=True, undo=[
        "ALTER TABLE {table} RENAME COLUMN renamed TO {text}", *drop_feature("columnMapping")]),
    Operation("drop-column", [MAPPING, "ALTER TABLE {table} DROP COLUMN {nullable}"], REFUSED, not_writable=True, changes_rows=True, undo=[
        *drop_feature("columnMapping")]),
    # Spark 3.5 widens no INT: the tables have the feature, and no widened column.
    Operation("type-widening", [properties(enableTypeWidening="true")], ON, undo=[
        properties(enableTypeWidening="false"), *drop_feature("typeWidening-preview")]),
    Operation("deletion-vectors", [
        properties(enableDeletionVectors="true"), "DELETE FROM {table} WHERE {where}"
    ], ON, verify=False, changes_rows=True, undo=[
        properties(enableDeletionVectors="false"), "REORG TABLE {table} APPLY (PURGE)", *drop_feature("deletionVectors")]),
    Operation("deletion-vectors-unused", [properties(enableDeletionVectors="true")], ON, undo=[
        properties(enableDeletionVectors="false"), *drop_feature("deletionVectors")]),
    Operation("change-data-feed", [properties(enableChangeDataFeed="true")], ON, undo=[
        properties(enableChangeDataFeed="false"), *drop_feature("changeDataFeed")]),
    Operation("append-only", [properties(appendOnly="true")], rebuild=True),
    Operation("v2-checkpoint", [properties(checkpointPolicy="v2"), "OPTIMIZE {table}"], ON, undo=[
        properties(checkpointPolicy="classic"), *drop_feature("v2Checkpoint")]),
    Operation("in-commit-timestamps", [properties(enableInCommitTimestamps="true")], ON, undo=[
        properties(enableInCommitTimestamps="false"), *drop_feature("inCommitTimestamp")]),
    Operation("row-tracking", [properties(enableRowTracking="true")], REFUSED, not_writable=True, undo=[
        properties(enableRowTracking="false"), *drop_feature("rowTracking")]),
    Operation("column-default", [
        "ALTER TABLE {table} SET TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported')",
        "ALTER TABLE {table} ALTER COLUMN {text} SET DEFAULT 'nothing'"
    ], ON, undo=[
        "ALTER TABLE {table} ALTER COLUMN {text} DROP DEFAULT", *drop_feature("allowColumnDefaults")]),
    Operation("retention", [
        properties(logRetentionDuration="interval 1 hours", deletedFileRetentionDuration="interval 1 hours")]),
    # The checkpoint of the second statement lets Spark delete the entries before it.
    Operation("log-deleted", [
        properties(logRetentionDuration="interval 0 seconds", checkpointInterval="1"), "OPTIMIZE {table}",
        OTHER, OTHER,
    ], older_days=10),
    Operation("checkpoint-interval", [properties(checkpointInterval="1"), "OPTIMIZE {table}", OTHER]),
    Operation("stats-columns", [properties(dataSkippingNumIndexedCols="0"), "OPTIMIZE {table}"]),
    Operation("check-constraint", ["ALTER TABLE {table} ADD CONSTRAINT other_engines CHECK ({offset} >= 0)"], ON, undo=[
        "ALTER TABLE {table} DROP CONSTRAINT other_engines", *drop_feature("checkConstraints")]),
    Operation("transaction-retention", [
        properties(setTransactionRetentionDuration="interval 0 seconds", checkpointInterval="1"), "OPTIMIZE {table}",
        OTHER,
    ]),
    Operation("replace", [
        "CREATE OR REPLACE TABLE {table} USING delta PARTITIONED BY (event_date) AS SELECT * FROM {table} WHERE NOT ({where})",
    ], verify=False, changes_rows=True),
    Operation("delta-rs-compact", [{"do": "compact"}]),
    Operation("delta-rs-zorder", [{"do": "z-order", "where": "{key}"}]),
    Operation("delta-rs-delete", [{"do": "delete", "where": "{where}"}], verify=False, changes_rows=True),
    Operation("delta-rs-update", [{"do": "update", "where": ["{text}", "'edited'", "{where}"]}], verify=False,
        changes_rows=True),
    Operation("delta-rs-vacuum", [{"do": "compact"}, {"do": "vacuum"}]),
    Operation("delta-rs-log-deleted", [
        {"do": "property", "where": ["delta.logRetentionDuration", "interval 0 seconds"]}, {"do": "checkpoint"},
    ], older_days=10),
    Operation("delta-rs-add-column", [{"do": "add-column"}]),
    Operation("delta-rs-restore", [{"do": "restore", "where": 3}], verify=False, changes_rows=True),
    Operation("delta-rs-constraint", [{"do": "constraint", "where": "{offset} >= 0"}], ON),
    Operation("polars-append", [{"do": "append", "where": "{where}"}], verify=False, changes_rows=True),
]

BRONZE = ["cluster_id", "topic", "partition", "offset", "timestamp", "timestamp_type", "key", "value", "headers",
    "ingested_at", "event_date"]
PAGE_VIEW = ["event_id", "user_id", "ts", "url", "referrer", "channel", "browser", "os", "device", "session_hint",
    "_cluster_id", "_topic", "_partition", "_offset", "ingested_at", "event_date"]


def words(table, path, before, day):
    """What stands in the statements for this table."""
    prefix, columns = ("", BRONZE) if table == "bronze" else ("_", PAGE_VIEW)
    offset = f"{prefix}offset"
    moved = ", ".join(f"{offset} + 1000000000 AS {offset}" if name == offset else name for name in columns)
    return {
        "table": f"delta.`{path}`", "before": before, "day": day, "moved": moved,
        "topic": f"{prefix}topic", "partition": f"{prefix}partition", "offset": offset,
        # Of the first topic, whose events all tables have by then.
        "where": f"event_date = '{day}' AND {prefix}topic = 'first' AND {offset} < 40",
        "key": offset if table == "bronze" else "user_id",
        "text": "timestamp_type" if table == "bronze" else "user_id",
        "required": "topic" if table == "bronze" else "url",
        "nullable": "timestamp_type" if table == "bronze" else "referrer",
    }


def fill(statement, known):
    """The statement for a table."""
    if isinstance(statement, str):
        return statement.format(**known)
    if isinstance(statement, list):
        return [fill(each, known) for each in statement]
    if isinstance(statement, dict):
        return {key: fill(value, known) for key, value in statement.items()}
    return statement
