#!/usr/bin/env python3
"""Computes the Gold tables of the repository's pipeline.toml from Silver with Polars and plain Python, and compares them.

    check_gold.py DATA

DATA is the folder that has silver/ and gold/. Needs the packages deltalake, pyarrow and polars. Prints the number of rows of
each table. Prints the first difference and exits with 1 if there is one.
"""

import datetime
import decimal
import math
import os
import sys
from collections import defaultdict
from pathlib import Path

import polars as pl
import pyarrow
from deltalake import DeltaTable

PAUSE = datetime.timedelta(minutes=30)
CENT = decimal.Decimal("0.01")


def read(path):
    return pl.from_arrow(pyarrow.table(DeltaTable(str(path)).to_pyarrow_table()))


def daily_metrics(views, carts, orders):
    users = pl.concat([t.select("event_date", "user_id") for t in (views, carts, orders)])
    days = users.group_by("event_date").agg(unique_users=pl.col("user_id").n_unique())
    for table, name in ((views, "views"), (carts, "carts"), (orders, "orders")):
        days = days.join(table.group_by("event_date").agg(pl.len().alias(name)), on="event_date", how="left")
    days = days.join(orders.group_by("event_date").agg(revenue=pl.col("total").sum()), on="event_date", how="left")
    for row in days.iter_rows(named=True):
        views_, orders_ = row["views"] or 0, row["orders"] or 0
        revenue = row["revenue"] or decimal.Decimal(0)
        yield {
            "event_date": row["event_date"], "views": views_, "carts": row["carts"] or 0, "orders": orders_,
            "unique_users": row["unique_users"], "revenue": revenue,
            "average_order_value": float(revenue) / orders_ if orders_ else None,
            "conversion": orders_ / views_ if views_ else None,
        }


def items(orders):
    return orders.select("event_date", "order_id", "line_items").explode("line_items").unnest("line_items")


def product_daily(_, carts, orders):
    carted = carts.group_by("event_date", "sku").agg(carts=pl.len(), pieces_in_carts=pl.col("qty").sum(), category=pl.col("category").max())
    sold = items(orders).group_by("event_date", "sku").agg(
        orders=pl.len(), pieces_sold=pl.col("qty").sum(), revenue=pl.col("line_total").sum(), sold_category=pl.col("category").max()
    )
    for row in carted.join(sold, on=["event_date", "sku"], how="full", coalesce=True).iter_rows(named=True):
        yield {
            "event_date": row["event_date"], "sku": row["sku"],
            "category": max((c for c in (row["category"], row["sold_category"]) if c is not None), default=None),
            **{name: row[name] or 0 for name in ("carts", "pieces_in_carts", "orders", "pieces_sold")},
            "revenue": row["revenue"] or decimal.Decimal(0),
        }


def revenue_by_category_daily(_views, _carts, orders):
    by = items(orders).with_columns(pl.col("category").fill_null("unknown")).group_by("event_date", "category")
    yield from by.agg(
        orders=pl.col("order_id").n_unique(), pieces=pl.col("qty").sum(), revenue=pl.col("line_total").sum()
    ).iter_rows(named=True)


def events(views, carts, orders):
    zero = pl.lit(None)
    for kind, table in (("views", views), ("carts", carts), ("orders", orders)):
        total = pl.col("total") if kind == "orders" else zero
        for user, ts, day, total in table.select("user_id", "ts", "event_date", total.alias("total")).iter_rows():
            yield user, ts, day, kind, total


def sessions(views, carts, orders):
    by_user = defaultdict(list)
    for user, ts, day, kind, _ in events(views, carts, orders):
        by_user[user].append((ts, day, kind))
    for user, seen in by_user.items():
        seen.sort(key=lambda event: event[0])
        current, last, number = None, None, 0
        for ts, day, kind in seen:
            follows = last is not None and ts - last[0] <= PAUSE
            if current is None or not follows or day != last[1]:
                if current is not None:
                    yield current
                number = number + 1 if last is not None and day == last[1] else 1
                current = {
                    "event_date": day, "user_id": user, "session": number, "started_at": ts, "ended_at": ts, "pages": 0,
                    "cart_events": 0, "orders": 0, "converted": False, "continued": follows and day != last[1],
                }
            current["ended_at"] = ts
            current[{"views": "pages", "carts": "cart_events", "orders": "orders"}[kind]] += 1
            current["converted"] |= kind == "orders"
            last = (ts, day)
        yield current


def user_daily(views, carts, orders):
    rows = {}
    for user, ts, day, kind, total in events(views, carts, orders):
        row = rows.setdefault((day, user), {
            "event_date": day, "user_id": user, "views": 0, "carts": 0, "orders": 0, "revenue": decimal.Decimal(0),
            "first_seen": ts, "last_seen": ts,
        })
        row[kind] += 1
        row["revenue"] += total or 0
        row["first_seen"], row["last_seen"] = min(row["first_seen"], ts), max(row["last_seen"], ts)
    yield from rows.values()


TABLES = {
    daily_metrics: ["event_date"],
    product_daily: ["event_date", "sku"],
    revenue_by_category_daily: ["event_date", "category"],
    sessions: ["event_date", "user_id", "session"],
    user_daily: ["event_date", "user_id"],
}


def same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9)
    if isinstance(a, decimal.Decimal) or isinstance(b, decimal.Decimal):
        return decimal.Decimal(a).quantize(CENT) == decimal.Decimal(b).quantize(CENT)
    return a == b


def compare(name, keys, ours, gold):
    by_key = lambda rows: {tuple(row[key] for key in keys): row for row in rows}
    expected, found = by_key(ours), by_key(gold)
    if len(found) != len(gold):
        sys.exit(f"{name}: {len(gold)} rows, of which only {len(found)} differ in {keys}")
    for key in sorted(set(expected) | set(found), key=str):
        if key not in expected or key not in found:
            sys.exit(f"{name}: {key} is {'not in Gold' if key in expected else 'only in Gold'}")
        for column in expected[key].keys() | found[key].keys():
            a, b = expected[key].get(column, "no column"), found[key].get(column, "no column")
            if not same(a, b):
                sys.exit(f"{name}: {key}: {column} is {b!r} in Gold, expected {a!r}")


def main():
    data = Path(sys.argv[1])
    silver = [read(data / "silver" / name) for name in ("page_view", "add_to_cart", "order_placed")]
    for model, keys in TABLES.items():
        name = model.__name__
        ours, gold = list(model(*silver)), list(read(data / "gold" / name).iter_rows(named=True))
        if not gold:
            sys.exit(f"{name}: no rows")
        compare(name, keys, ours, gold)
        print(f"{name}: {len(gold)} rows, the same")


if __name__ == "__main__":
    main()
    # Without this, the threads of Polars and Arrow may abort the interpreter while it exits.
    sys.stdout.flush()
    os._exit(0)
