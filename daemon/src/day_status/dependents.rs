//! Which days of Gold tables depend on a day of another table.

use std::collections::BTreeMap;

/// The Gold tables that are computed from each table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dependents(BTreeMap<String, Vec<Dependent>>);

#[derive(Clone, Debug)]
struct Dependent {
    table: String,
    lookback_days: u32,
}

impl Dependents {
    /// A Gold table, by its name in queries, is computed from `source`.
    pub(crate) fn add(&mut self, source: &str, table: &str, lookback_days: u32) {
        let dependent = Dependent { table: table.to_owned(), lookback_days };
        self.0.entry(source.to_owned()).or_default().push(dependent);
    }

    /// The days that change with a table's day: the day itself, and those of Gold.
    pub(super) fn with_day<'d>(&'d self, table: &'d str, day: i32) -> impl Iterator<Item = (&'d str, i32)> {
        let of_gold = self.0.get(table).into_iter().flatten().flat_map(move |dependent| {
            let days = 0..=i32::try_from(dependent.lookback_days).unwrap_or(i32::MAX);
            days.map(move |later| (dependent.table.as_str(), day.saturating_add(later)))
        });
        std::iter::once((table, day)).chain(of_gold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_changes_with_its_sources_and_with_the_days_before() {
        let mut dependents = Dependents::default();
        dependents.add("orders", "gold.daily", 0);
        dependents.add("orders", "gold.sessions", 1);
        dependents.add("views", "gold.sessions", 1);
        let with = |table, day| dependents.with_day(table, day).collect::<Vec<_>>();
        let of_orders = [("orders", 7), ("gold.daily", 7), ("gold.sessions", 7), ("gold.sessions", 8)];
        assert_eq!(with("orders", 7), of_orders);
        assert_eq!(with("gold.daily", 7), [("gold.daily", 7)]);
    }
}
