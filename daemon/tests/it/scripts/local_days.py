#!/usr/bin/env python3
"""Computes the local days and hours of events with Python's zoneinfo, and what each day's orders are worth.

    local_days.py TZDATA EVENTS ZONES

EVENTS is a file with one event a line: JSON with `shop`, `event_id`, `ts` (RFC 3339, UTC) and `total`, a number with two
decimals. ZONES is a JSON object: the zone of each shop. Prints a JSON object: for each shop the `day` of each event, and for
each of its `days` the number of orders and the cents of their totals; for each local `hours` of a day the number of orders.

Needs the package tzdata of the release TZDATA, such as 2025b: the zones of the system may have other rules.
"""

import datetime
import decimal
import json
import sys
import zoneinfo
from collections import defaultdict

import tzdata


def main():
    release, events, zones = sys.argv[1:]
    if tzdata.IANA_VERSION != release:
        sys.exit(f"local_days: tzdata is {tzdata.IANA_VERSION}, expected {release}: see .ci/lib")
    zoneinfo.reset_tzpath(to=[])
    zones = {shop: zoneinfo.ZoneInfo(name) for shop, name in json.loads(zones).items()}
    shops = {shop: {"day": {}, "days": defaultdict(lambda: [0, 0]), "hours": defaultdict(int)} for shop in zones}
    with open(events, encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line, parse_float=decimal.Decimal)
            shop = shops[event["shop"]]
            utc = datetime.datetime.fromisoformat(event["ts"].replace("Z", "+00:00"))
            local = utc.astimezone(zones[event["shop"]])
            day = local.date().isoformat()
            shop["day"][event["event_id"]] = day
            shop["days"][day][0] += 1
            shop["days"][day][1] += int(event["total"] * 100)
            shop["hours"][str(local.hour)] += 1
    json.dump(shops, sys.stdout)


main()
