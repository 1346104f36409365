//! Generated events of a shop: page views, items added to carts, placed orders. The same seed and times give the same
//! events.

mod user_agent;

use std::collections::{HashMap, VecDeque};
use std::fmt;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use user_agent::Ranks;
pub use user_agent::UserAgents;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// A visitor who stays longer than this gets a new `session_hint`.
const VISIT_MICROS: i64 = 30 * 60 * MICROS_PER_SECOND;
/// A duplicate follows its event after at most this many others: soon enough for any deduplication window.
const RESEND_WITHIN_EVENTS: u64 = 20;
/// A full cart drops its oldest item.
const CART_ITEMS_MAX: usize = 20;
/// Once this many carts are open, items go only to users who have one.
const OPEN_CARTS_MAX: usize = 10_000;
const SKUS: u64 = 500;
const PRICE_CENTS_MIN: u64 = 500;
const PRICE_CENTS_MAX: u64 = 20_000;
const QUANTITY_MAX: u64 = 3;

/// The most popular first, see [`Random::popular`].
const REFERRERS: [&str; 6] = ["google", "direct", "facebook", "newsletter", "twitter", "affiliate"];
const PATH_WORDS: [&str; 12] = [
    "category",
    "categories",
    "search",
    "explore",
    "main",
    "list",
    "app",
    "tag",
    "tags",
    "blog",
    "posts",
    "wp-content",
];

/// Settings of the generated shop.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The number of users, named `user-1` and up. 0 counts as 1.
    pub users: u32,
    /// The percentage of events that are sent twice.
    pub dup_pct: f64,
    /// The largest distance of an event's `ts` from the current time.
    pub skew_seconds: u32,
    /// The same seed and the same times give the same events.
    pub seed: u64,
    /// The day of the events, as days since 1970-01-01; the time of day stays the current one.
    pub backdate: Option<i32>,
    pub user_agents: UserAgents,
}

impl Default for Options {
    fn default() -> Self {
        Self { users: 200, dup_pct: 1.5, skew_seconds: 300, seed: 0, backdate: None, user_agents: UserAgents::Browsers }
    }
}

/// One generated event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The event's `event_id`.
    pub key: String,
    /// The event, as JSON.
    pub value: Vec<u8>,
    /// Whether the same bytes were returned before.
    pub duplicate: bool,
}

/// An endless generator of events.
#[derive(Clone, Debug)]
pub struct Generator {
    options: Options,
    random: Random,
    carts: Carts,
    resends: VecDeque<Resend>,
    generated: u64,
    ranks: Option<Ranks>,
}

/// An event to return again as number `due`.
#[derive(Clone, Debug)]
struct Resend {
    due: u64,
    event: Generated,
}

impl Generator {
    pub fn new(options: Options) -> Self {
        let random = Random::new(options.seed);
        let ranks = match options.user_agents {
            UserAgents::Zipf(count) => Some(Ranks::new(count)),
            UserAgents::Browsers | UserAgents::Distinct => None,
        };
        Self { options, random, carts: Carts::default(), resends: VecDeque::new(), generated: 0, ranks }
    }

    /// The next event. `now_micros` is the current time, in microseconds since the Unix epoch, UTC.
    pub fn next(&mut self, now_micros: i64) -> Generated {
        self.generated += 1;
        let number = self.generated;
        if let Some(resend) = self.resends.pop_front_if(|resend| resend.due <= number) {
            return resend.event;
        }
        let event = self.event(now_micros);
        if self.random.fraction() * 100.0 < self.options.dup_pct {
            let due = number + 1 + self.random.below(RESEND_WITHIN_EVENTS);
            self.resends.push_back(Resend { due, event: Generated { duplicate: true, ..event.clone() } });
        }
        event
    }

    fn event(&mut self, now_micros: i64) -> Generated {
        let key = self.random.uuid();
        let ts = self.timestamp(now_micros);
        let user = 1 + self.random.below(self.options.users.max(1).into()) as u32;
        let value = match self.random.below(100) {
            0..75 => self.page_view(&key, user, &ts, now_micros),
            75..95 => self.add_to_cart(&key, user, &ts),
            _ => self.order_placed(&key, user, &ts),
        };
        Generated { key, value: value.into_bytes(), duplicate: false }
    }

    fn page_view(&mut self, id: &str, user: u32, ts: &str, now_micros: i64) -> String {
        let url = format!("{}/{}", self.random.popular(&PATH_WORDS), self.random.popular(&PATH_WORDS));
        let referrer = self.random.popular(&REFERRERS);
        // Derived from the seed for each page view, so that visits need no memory.
        let mut visit = self.visit(user, now_micros);
        let session = visit.uuid();
        let ua = match (&self.ranks, self.options.user_agents) {
            (Some(ranks), _) => user_agent::of_rank(ranks.draw(&mut self.random)),
            (None, UserAgents::Distinct) => user_agent::of_rank(self.generated),
            (None, _) => user_agent::draw(&mut visit),
        };
        format!(
            r#"{{"event_type": "page_view", "event_id": "{id}", "user_id": "user-{user}", "ts": "{ts}", "url": "{url}", "referrer": "{referrer}", "ua": "{ua}", "session_hint": "{session}"}}"#
        )
    }

    fn add_to_cart(&mut self, id: &str, user: u32, ts: &str) -> String {
        let user = if self.carts.has_room_for(user) { user } else { self.carts.any_user(&mut self.random) };
        let item = self.random.item();
        self.carts.put(user, item);
        format!(
            r#"{{"event_type": "add_to_cart", "event_id": "{id}", "user_id": "user-{user}", "ts": "{ts}", {item}}}"#
        )
    }

    /// If no cart is open, this is an `add_to_cart` instead.
    fn order_placed(&mut self, id: &str, user: u32, ts: &str) -> String {
        let Some(Cart { user, items }) = self.carts.take(user, &mut self.random) else {
            return self.add_to_cart(id, user, ts);
        };
        let order_id = self.random.uuid();
        let total = Money(items.iter().map(|item| item.quantity * item.price.0).sum());
        let items = items.iter().map(|item| format!("{{{item}}}")).collect::<Vec<_>>().join(", ");
        format!(
            r#"{{"event_type": "order_placed", "event_id": "{id}", "user_id": "user-{user}", "order_id": "{order_id}", "ts": "{ts}", "total": {total}, "line_items": [{items}]}}"#
        )
    }

    /// The random numbers of one visit: the same for all page views of a user within [`VISIT_MICROS`].
    fn visit(&self, user: u32, now_micros: i64) -> Random {
        let mut of_user = Random::new(self.options.seed.wrapping_add(user.into()));
        let phase = of_user.below(VISIT_MICROS as u64) as i64;
        let window = now_micros.saturating_add(phase).div_euclid(VISIT_MICROS);
        Random::new(of_user.below(u64::MAX).wrapping_add(window as u64))
    }

    fn timestamp(&mut self, now_micros: i64) -> String {
        let now = match self.options.backdate {
            None => now_micros,
            Some(day) => {
                i64::from(day).saturating_mul(MICROS_PER_DAY).saturating_add(now_micros.rem_euclid(MICROS_PER_DAY))
            }
        };
        let skew = i64::from(self.options.skew_seconds) * MICROS_PER_SECOND;
        let ahead = self.random.below(2 * skew as u64 + 1) as i64 - skew;
        let offset = match self.random.below(10) {
            0..6 => "",
            6..8 => "+00:00",
            _ => "Z",
        };
        format!("{}{offset}", Iso(now.saturating_add(ahead)))
    }
}

/// Random numbers that are the same in every version of every library: xoshiro256++, seeded with SplitMix64.
#[derive(Clone, Debug)]
struct Random(Xoshiro256PlusPlus);

impl Random {
    fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// From 0 to `end - 1`. The bias of end / 2^64 is acceptable here.
    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// From 0 to 1, excluding 1.
    fn fraction(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of `choices`; the first ones are the most frequent, because the lower of two draws is taken.
    fn popular<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        let end = choices.len() as u64;
        choices[self.below(end).min(self.below(end)) as usize]
    }

    /// A UUID of version 4 (RFC 9562, section 5.4).
    fn uuid(&mut self) -> String {
        let high = self.0.next_u64() & !0xf000 | 0x4000;
        let low = self.0.next_u64() & (u64::MAX >> 2) | 1 << 63;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    fn item(&mut self) -> Item {
        let sku = 1 + self.below(SKUS).min(self.below(SKUS));
        let price = Money(PRICE_CENTS_MIN + self.below(PRICE_CENTS_MAX - PRICE_CENTS_MIN + 1));
        Item { sku, quantity: 1 + self.below(QUANTITY_MAX), price }
    }
}

/// An item in a cart or an order. Displays as the fields of a JSON object, without its braces.
#[derive(Clone, Copy, Debug)]
struct Item {
    sku: u64,
    quantity: u64,
    price: Money,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#""sku": "SKU-{:05}", "qty": {}, "price": {}"#, self.sku, self.quantity, self.price)
    }
}

/// Cents, displayed with two decimals; exact, without floating point.
#[derive(Clone, Copy, Debug)]
struct Money(u64);

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

#[derive(Clone, Debug)]
struct Cart {
    user: u32,
    items: Vec<Item>,
}

/// The open carts; none is empty.
#[derive(Clone, Debug, Default)]
struct Carts {
    open: Vec<Cart>,
    /// The index of a user's cart in `open`. Never iterated, since the order of a hash map does not depend on the seed.
    index: HashMap<u32, usize>,
}

impl Carts {
    fn has_room_for(&self, user: u32) -> bool {
        self.open.len() < OPEN_CARTS_MAX || self.index.contains_key(&user)
    }

    /// A user with an open cart; there must be one.
    fn any_user(&self, random: &mut Random) -> u32 {
        self.open[random.below(self.open.len() as u64) as usize].user
    }

    fn put(&mut self, user: u32, item: Item) {
        let index = *self.index.entry(user).or_insert(self.open.len());
        if index == self.open.len() {
            self.open.push(Cart { user, items: Vec::new() });
        }
        let items = &mut self.open[index].items;
        if items.len() == CART_ITEMS_MAX {
            items.remove(0);
        }
        items.push(item);
    }

    /// Removes the user's cart, or else any cart, if there is one.
    fn take(&mut self, user: u32, random: &mut Random) -> Option<Cart> {
        if self.open.is_empty() {
            return None;
        }
        let user = if self.index.contains_key(&user) { user } else { self.any_user(random) };
        let index = self.index.remove(&user)?;
        let cart = self.open.swap_remove(index);
        if let Some(moved) = self.open.get(index) {
            self.index.insert(moved.user, index);
        }
        Some(cart)
    }
}

/// Microseconds since the Unix epoch, displayed as `2025-08-16T14:50:49.401333`.
struct Iso(i64);

impl fmt::Display for Iso {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(MICROS_PER_DAY));
        let micros = self.0.rem_euclid(MICROS_PER_DAY);
        let seconds = micros / MICROS_PER_SECOND;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            micros % MICROS_PER_SECOND
        )
    }
}

/// The year, month and day of a day number, in the proleptic Gregorian calendar.
/// This is Howard Hinnant's algorithm, <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>:
/// it counts in years that start on 1 March, so that the leap day is the last of its year.
fn civil_from_days(days_since_epoch: i64) -> (i64, i64, i64) {
    let days = days_since_epoch + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
